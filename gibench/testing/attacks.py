"""What every attack keeps to."""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn

from gibench import client, experiment, seeds
from gibench.attack import AttackRun, Context, outside
from gibench.cell import Cell
from gibench.datasets.base import Split
from gibench.deadline import DeadlinePassed, hard_stop
from gibench.observation import Observation
from gibench.outcome import Outcome
from gibench.result import Row
from gibench.stages import Preparation
from gibench.testing import subject as shared
from gibench.testing.device import NAME, simulated
from gibench.testing.subject import FaultError, NotHereError, settings, silent, unchanged, unchanged_process
from gibench.threat_model import DEFAULT_KNOWLEDGE, KNOWLEDGE, ThreatModel

_CONTROLS = ("mean-image", "random")
_LEAKED = 1e-4  # mean squared error to a private image that nothing tells of: 40 dB
_OTHERS = (
    {"model": "linear"}, {"model": "mlp:width=8,depth=1"}, {"model": "mlp:width=16,depth=4"}, {"model": "lenet"},
    {"model": "convnet:width=4"}, {"batch_size": 12, "model": "mlp:width=8,depth=2"}, {"defense": "fedavg:epochs=1"},
    {"dtype": "float64"}, {"dtype": "bfloat16"}, {"knows": "nothing"},
)  # fmt: skip


class Subject(shared.Subject):
    """An attack."""

    kind = "attack"

    def __init__(self, spec: str, home: Mapping[str, Any]) -> None:
        super().__init__(spec, home)
        granted = {*DEFAULT_KNOWLEDGE, *self.plugin.requires}
        self.home.setdefault("knows", ",".join(fact for fact in KNOWLEDGE if fact in granted))

    @cached_property
    def at_home(self) -> tuple[Preparation, Any, AttackRun]:
        """The side that holds the truth, what the attack is shown, and what it makes of it; nobody may write on it."""
        preparation, observation = self.prepared()
        run = self.attack(observation)
        if run.status == "skipped":
            raise FaultError(
                f"it refuses the scenario that is to be its home ({run.reason}): name one that it takes, as in "
                "conformance('attack', NAME, model='linear', batch_size=1) or --home model=linear"
            )
        return preparation, observation, run

    def attack(self, observation: Any, seconds: float | None = None, device: str = "cpu") -> AttackRun:
        """Run the attack on a copy of what it is shown.

        Args:
            observation: what a server sees.
            seconds: until its deadline; none: the kit's limit for any run.
            device: to run it on.

        Raises:
            FaultError: it runs on and on.
        """
        generator = seeds.generator(0, "attack", device)
        wait = shared.LIMIT if seconds is None else seconds
        context = Context(generator, torch.device(device), time.monotonic() + wait, silent, clamp=False)
        shown = copy.deepcopy(observation)
        try:
            with seeds.isolated(0, "attack"), hard_stop(wait + shared.PATIENCE):
                return cast(AttackRun, self.plugin(shown, context))
        except DeadlinePassed:
            raise FaultError(
                f"it still ran {shared.PATIENCE:g} s after its deadline: ask context.expired() now and then, and "
                "return what there is"
            ) from None


def deadline(subject: Subject) -> str:
    """Returns what it has once its deadline has passed."""
    _, observation = subject.prepared()
    start = time.perf_counter()
    subject.attack(observation, seconds=0)
    return f"returned {time.perf_counter() - start:.1f} s after it"


def shapes(subject: Subject) -> str:
    """Returns a Reconstruction of images as large as those it is shown, and beside them what belongs there."""
    _, _, run = subject.at_home
    found = run.reconstruction
    assert found is not None  # it was not skipped
    shared.refuse_unjsonable("its diagnostics", dict(found.diagnostics))
    return f"images {list(found.images.shape)}"


def pixels(subject: Subject) -> str:
    """Returns pixels: values in [0, 1], not what a network takes, which is normalised."""
    images = _images(subject)
    if wrong := outside(images):
        raise FaultError(wrong)
    return "from {:.2f} to {:.2f}".format(*map(float, images.aminmax())) if images.numel() else "no images"


def seeded(subject: Subject) -> str:
    """Gives the same bits again from the same seed, whatever the global generators hold."""
    _, observation, first = subject.at_home
    shared.stir(1)
    again = subject.attack(observation)
    if not _same(first, again):
        raise FaultError("two runs from one seed give different images: draw everything from context.generator")
    return "twice the same"


def processes(subject: Subject) -> str:
    """Gives the same bits in another process."""
    from gibench.sweep.pair import Pair

    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise NotHereError("processes cannot be forked here")
    cell, pair = subject.cell(timeout=shared.LIMIT), Pair()
    try:
        there = pair.run(cell, Row, silent)
    finally:
        pair.quit()
    here = experiment.run_cell(cell, silent)
    ended = [(each.row.status, each.row.reason) for each in (here, there)]
    if ended[0] != ended[1]:
        raise FaultError(f"it is {ended[0]} here and {ended[1]} in another process")
    if here.images is None or there.images is None or here.images["mse"].tolist() != there.images["mse"].tolist():
        raise FaultError(
            "another process gives other images: what decides them is not in the observation or the context"
        )
    return "the same"


def device(subject: Subject) -> str:
    """Works on the device that it is told, and returns its images there."""
    _, observation, _ = subject.at_home
    with simulated():
        run = subject.attack(observation, device=NAME)
        assert run.reconstruction is not None
        if run.reconstruction.images.device.type != NAME:
            raise FaultError("its images are on the CPU: make every tensor on context.device")
    return "works on a simulated one"


def observation(subject: Subject) -> str:
    """Leaves what it is shown as it is: the update, the model, what is granted."""
    _, shown, _ = subject.at_home
    mine = copy.deepcopy(shown)
    context = Context(seeds.generator(0, "attack"), torch.device("cpu"), time.monotonic() + shared.LIMIT, silent)
    with seeds.isolated(0, "attack"), unchanged(observation=mine):
        subject.plugin(mine, context)
    return "as it was"


def process(subject: Subject) -> str:
    """Leaves the process as it is: defaults, threads, global generators, folder, libraries, standard output."""
    _, shown, _ = subject.at_home  # what is first imported may set something up
    mine = copy.deepcopy(shown)
    context = Context(seeds.generator(0, "attack"), torch.device("cpu"), time.monotonic() + shared.LIMIT, silent)
    with unchanged_process():
        subject.plugin(mine, context)
    return "as it was"


def truth(subject: Subject) -> str:
    """Finds nothing that it was not shown: private images lie about while it is shown an update of noise."""
    preparation, _, _ = subject.at_home
    images = experiment.load(preparation.cell.dataset)
    count = len(preparation.truth or ())
    generator = seeds.generator(1, "data")
    noise = torch.randint(0, 256, (count, *images.image_shape), generator=generator) / 255
    labels = torch.randint(images.num_classes, (count,), generator=generator)
    shown = _release(preparation.cell, Split(noise, labels))
    canary = images.private  # in this frame, and in what the harness keeps, for whoever goes looking
    run = subject.attack(replace(shown, foreign=preparation.facts.foreign))
    found = run.reconstruction
    if found is None or not len(found.images):
        return "nothing found in noise"
    gaps = torch.cdist(found.images.flatten(1).float(), canary.images.flatten(1)).square() / canary.images[0].numel()
    if float(gaps.min()) < _LEAKED:
        raise FaultError(
            "it returned a private image though it was shown an update of noise: it reads what no server sees, such as "
            "the data set"
        )
    return "finds no private image in an update of noise"


def models(subject: Subject) -> str:
    """Refuses in `supports` what it cannot take, and fails on nothing: other networks, updates, facts and numbers."""
    taken = []
    for changes in _OTHERS:
        words = ", ".join(f"{axis}={value}" for axis, value in changes.items())
        try:
            _, shown = subject.prepared(**changes)
        except shared.UnpreparedError:
            continue  # nothing reaches the attack
        taken += [words] * (_run_on(subject, shown, words).status != "skipped")
    _, shown = subject.prepared(model="mlp:width=16,depth=2")
    for words, model, kept in _odd_networks(shown.model):
        tensors = {name: tensor for name, tensor in shown.update.tensors.items() if name in kept}
        odd = replace(shown, model=model, update=replace(shown.update, tensors=tensors))
        taken += [words] * (_run_on(subject, odd, words).status != "skipped")
    return f"takes {'; '.join(taken) or 'none'}, and refuses the others of {len(_OTHERS) + 2}"


def smallest(subject: Subject) -> str:
    """Ends well on the smallest batch: one image."""
    _, shown = subject.prepared(batch_size=1)
    run = subject.attack(shown)
    if run.status in ("diverged", "timeout"):
        raise FaultError(f"on one image it is {run.status}: {run.reason}")
    return run.status + (f": {run.reason}" if run.reason else "")


def home(subject: Subject) -> str:
    """Is better than the controls in the scenario that is its home, or says that it is a control itself."""
    preparation, _, run = subject.at_home
    if subject.plugin.control:
        return "a control"
    score = _psnr(preparation, run)
    others = {name: _score(subject, name) for name in _CONTROLS}
    best = max(others, key=others.__getitem__)
    words = f"{score:.1f} dB against {others[best]:.1f} dB of {best}"
    if not score > others[best]:
        raise FaultError(
            f"it finds nothing: {words}: name a scenario that it is made for (conformance(..., batch_size=1) or --home "
            "batch_size=1), or set `control = True`"
        )
    return words


CHECKS = (
    settings, deadline, shapes, pixels, seeded, processes, device, observation, process, truth, models, smallest, home,
)  # fmt: skip


def _images(subject: Subject) -> torch.Tensor:
    found = subject.at_home[2].reconstruction
    assert found is not None
    return found.images


def _same(one: AttackRun, other: AttackRun) -> bool:
    first, second = one.reconstruction, other.reconstruction
    if first is None or second is None:
        return first is second
    return shared.same(first.images, second.images)


def _run_on(subject: Subject, shown: Any, words: str) -> AttackRun:
    try:
        return subject.attack(shown, seconds=0.5)
    except FaultError:
        raise
    except Exception as error:
        raise FaultError(
            f"it fails on {words} ({type(error).__name__}: {error}): say in `supports` why it cannot be applied there"
        ) from error


def _odd_networks(network: nn.Module) -> list[tuple[str, nn.Module, set[str]]]:
    """The network with its first layer frozen, and without biases, and the parameters of each that a client sends."""
    frozen = copy.deepcopy(network)
    first = [name for name, _ in frozen.named_parameters()][:2]
    for name in first:
        frozen.get_parameter(name).requires_grad_(False)
    bare = copy.deepcopy(network)
    for module in bare.modules():
        if isinstance(module, nn.Linear):
            module.register_parameter("bias", None)
    sent = {name for name, _ in network.named_parameters()}
    return [
        ("a frozen first layer", frozen, sent - set(first)),
        ("layers without biases", bare, {name for name, _ in bare.named_parameters()}),
    ]


def _score(subject: Subject, control: str) -> float:
    preparation, shown = subject.prepared(attack=control)
    run = Subject(control, subject.home | {"attack": control}).attack(shown)
    return _psnr(preparation, run)


def _psnr(preparation: Preparation, run: AttackRun) -> float:
    row = preparation.result(Outcome.of(run)).row
    assert isinstance(row, Row)
    assert row.psnr_mean is not None  # it was not skipped
    return row.psnr_mean


def _release(cell: Cell, batch: Split) -> Observation:
    """What a server sees of a batch in the scenario of a cell."""
    images = experiment.load(cell.dataset)
    state = (cell.dataset, cell.model, cell.train_steps, cell.seed, cell.device, cell.threads, torch.float32)
    noise, knows = seeds.generator(cell.seed, "defense"), ThreatModel.parse(cell.knows)
    return client.observe(
        experiment.trained_model(*state)[0], images, batch, experiment.defenses(cell), knows, noise, cell.batch_size
    ).observation
