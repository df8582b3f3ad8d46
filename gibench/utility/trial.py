"""One training run under a chain of defenses: what the model learns, how long the clients take, what they send."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from statistics import median
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from gibench import chain, seeds, training
from gibench.axes import axes_of
from gibench.buffers import mean_gradient
from gibench.datasets.base import Images, Split
from gibench.deadline import DeadlinePassed, hard_stop
from gibench.defense import Batch, Defense, DefenseContext
from gibench.device import hardware, synchronize, threads
from gibench.errors import NotApplicableError, UsageError
from gibench.experiment import build, load
from gibench.job import Progress
from gibench.jsonable import jsonable
from gibench.observation import Update
from gibench.plugin import reason_of
from gibench.provenance import torch_version
from gibench.registry import create
from gibench.result import Result, without_score
from gibench.spec import parse, parse_chain
from gibench.stages import text_of
from gibench.text import one_line
from gibench.utility.draw import draws
from gibench.utility.job import Trial, TrialRow
from gibench.utility.size import bytes_of

LEAST_IMAGES = 500  # to train on; what fewer teach a network says nothing about a defense
MEASURED = 3  # rounds whose updates are measured in bytes

OVERRAN = "the training ran on past its deadline and was stopped: raise --timeout"


def run(trial: Trial, progress: Progress) -> Result:
    """`run_trial` on its threads and within its time. Whatever fails in it is its row's; Ctrl-C goes on."""
    try:
        with threads(trial.threads), hard_stop(trial.timeout):
            return run_trial(trial, progress)
    except DeadlinePassed:
        return without_score(trial, TrialRow, "timeout", OVERRAN)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of a defense or a model, whose code can be anybody's
        return without_score(trial, TrialRow, "failed", text_of(error))


def run_trial(trial: Trial, progress: Progress) -> Result:
    """Train, and test on images that the training never saw.

    The clients' images are drawn from the training split, as the defenses want it (see `gibench.utility.draw`): anew
    each round without replacement, unless a DP defense accounts for another sampler. The run's figures are those of
    the rounds that were done. The private split is the test split. The server adds a weight delta as it is (FedAvg),
    and takes a step of Adam at 1e-3 along a gradient, as `--train-steps` does.

    Raises:
        UsageError: the data cannot be had, or are too few.
    """
    images = load(trial.dataset)
    check(trial, images)
    device = torch.device(trial.device)
    row: dict[str, Any] = {name: getattr(trial, name) for name in axes_of(Trial)} | {"utility": trial.key}
    row |= {"hardware": hardware(device), "torch": torch_version()}
    with seeds.isolated(trial.seed, "model"):
        network = build(trial.dataset, trial.model).to(device)
    defenses = _defenses(trial)
    noise = seeds.generator(trial.seed, "defense", device)
    context = chain.context_of(defenses, noise, trial.batch_size, len(images.training), trial.rounds)
    context = replace(context, model=copy.deepcopy(network).train())
    for defense in defenses:
        if reason := reason_of(defense, defense.supports(network, context)):
            return Result(TrialRow(**row, status="skipped", reason=one_line(reason)))
    try:
        with seeds.isolated(trial.seed, "client"):
            seconds, sizes = _train(trial, network, images, defenses, context, progress)
    except NotApplicableError as refusal:
        return Result(TrialRow(**row, status="skipped", reason=one_line(refusal)))
    accuracy, loss = _test(network, images, images.private)
    if not math.isfinite(loss):
        row |= {"status": "diverged", "reason": "the loss left the finite numbers"}
    promised = chain.guarantee(defenses, replace(context, rounds=len(seconds)))
    row |= {"accuracy": accuracy, "loss": loss, "round_s": median(seconds), "round_bytes": sum(sizes) / len(sizes)}
    row |= promised.columns()
    return Result(TrialRow(**jsonable(row)), provenance={"defense_costs": jsonable(promised.costs)})


def check(trial: Trial, images: Images) -> None:
    """Refuse what teaches nothing or cannot be drawn.

    Raises:
        UsageError: too few images to train on, a round that needs more of them than there are, or a defense whose
            settings make no sense for them.
    """
    name, count = parse(trial.dataset).name, len(images.training)
    if count < LEAST_IMAGES:
        raise UsageError(
            f"{name} has {count} images to train on, and an accuracy from fewer than {LEAST_IMAGES} says nothing: "
            "train on digits or cifar10"
        )
    context = chain.context_of(_defenses(trial), torch.Generator(), trial.batch_size, count, trial.rounds)
    wanted = trial.batch_size * context.clients
    if wanted > count:
        raise UsageError(f"a round of {wanted} images is more than the {count} of {name} to train on: ask for fewer")


def _defenses(trial: Trial) -> list[Defense]:
    return [cast(Defense, create("defense", spec)) for spec in parse_chain(trial.defense)]


def _train(
    trial: Trial,
    network: nn.Module,
    images: Images,
    defenses: list[Defense],
    context: DefenseContext,
    progress: Progress,
) -> tuple[list[float], list[int]]:
    """Train the network in place; the seconds of each round's clients, and the bytes of the first rounds' updates."""
    device, drawn = context.generator.device, draws(context, seeds.generator(trial.seed, "data"))
    network.train()
    gradient = mean_gradient(network)
    trainable = training.trainable(network)
    optimizer = torch.optim.Adam(trainable.values(), lr=training.LEARNING_RATE)
    seconds, sizes = [], []
    for number in range(trial.rounds):
        if number % 20 == 0:
            progress("training", number / trial.rounds)
            if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
                break  # nothing is learned any more
        batches = [
            Batch(
                training.model_inputs(network, images, images.training.images[chosen]),
                images.training.labels[chosen].to(device),
            )
            for chosen in next(drawn)
        ]
        parameters = {name: value.detach().clone() for name, value in trainable.items()}
        synchronize(device)
        start = time.perf_counter()
        update, _ = chain.run(defenses, gradient, parameters, batches, context)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        if number < MEASURED:
            sizes.append(bytes_of(update.tensors.values()))
        _apply(trainable, update, optimizer)
    return seconds, sizes


def _apply(trainable: dict[str, nn.Parameter], update: Update, optimizer: torch.optim.Optimizer) -> None:
    """The server's step."""
    if update.kind == "weight_delta":
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.add_(update.tensors[name])
        return
    for name, parameter in trainable.items():
        parameter.grad = update.tensors[name].detach()
    optimizer.step()


def _test(network: nn.Module, images: Images, split: Split) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on a split."""
    _batchnorm_statistics(network, images)
    network.eval()
    total = 0.0
    with torch.no_grad():
        for pixels, labels in zip(torch.split(split.images, 256), torch.split(split.labels, 256), strict=True):
            logits = network(training.model_inputs(network, images, pixels))
            total += float(functional.cross_entropy(logits, labels.to(logits.device), reduction="sum"))
    return training.accuracy(network, images, split), total / len(split)


def _batchnorm_statistics(network: nn.Module, images: Images) -> None:
    """BatchNorm's running statistics, which no client sends: those of the training images."""
    layers = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    network.train()
    with torch.no_grad():
        for pixels in torch.split(images.training.images[:4096], 256):
            network(training.model_inputs(network, images, pixels))
