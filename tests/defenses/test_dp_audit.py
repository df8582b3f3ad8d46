"""Whether the stated epsilon holds for what is released: audited by the errors of the best guess of a neighbour.

Thousands of releases of a batch and of its neighbour go through the real `chain.run`, or whole rounds of a training run
through its sampler. Who tells the two apart too well refutes the stated epsilon: with (epsilon, delta)-DP no test has
true positives above exp(epsilon) times its false positives plus delta (Clopper-Pearson bounds of both).

One run holds `BLOCKS` releases at once. Each example's gradient lies in a block of its own of the parameters, noise is
independent on every entry, and sums are divided by BLOCKS times the batch's public size: up to that factor every block
is the release of a batch of its own.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta

from gibench import chain
from gibench.defense import Batch
from gibench.defenses.dp import DPSGD
from gibench.registry import create
from gibench.utility.draw import draws

BLOCKS, WIDTH = 100, 16  # releases a run; entries of each release in each of the two tensors
PILOT = 0.25  # share of the releases that the statistic and the threshold are chosen on
DELTAS = (1e-5, 0.01, 0.1, 0.2, 0.3, 0.5)
CONFIDENCE = 0.99
SIZE = 3  # of a batch, the canary included
LOUD = 1e3  # far above the clip norm


def gradient(parameters, inputs, labels):
    """The mean over examples of what each is, in the block that is its label."""
    blocks = (labels[:, None] == torch.arange(BLOCKS)).to(inputs.dtype) / max(1, len(labels))
    return {name: torch.einsum("nb,nw->bw", blocks, inputs) for name in parameters}


def examples(count, canary):
    """`[count * BLOCKS, WIDTH]` and their blocks: the last of each block is the canary, or missing where it is None."""
    inputs = torch.zeros(count, BLOCKS, WIDTH)
    inputs[:, :, 1] = 0.05  # what the others have in common
    if canary is None:
        inputs = inputs[:-1]
    else:
        inputs[-1] = torch.eye(WIDTH)[0] * canary
    return inputs.flatten(0, 1), torch.arange(BLOCKS).repeat(len(inputs))


def observed(update):
    """Of each release `[BLOCKS, 2]`: how far it goes along the canary, and the log of its size in other directions."""
    both = torch.stack(list(update.tensors.values())).double()
    return torch.stack([both[:, :, 0].sum(0), both[:, :, 2:].square().mean((0, 2)).log()], dim=1)


def releases(defenses, context, count, batches):
    parameters = {name: torch.zeros(BLOCKS, WIDTH) for name in ("one", "other")}
    runs = [observed(chain.run(defenses, gradient, parameters, batches(), context)[0]) for _ in range(count // BLOCKS)]
    return torch.cat(runs)


def context_of(defenses, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    return chain.context_of(defenses, generator, SIZE * BLOCKS, 2 * SIZE * BLOCKS, **options)


def pair_of(defenses, count, canaries):
    """Releases of the batch with the one and with the other canary, None for one that is missing."""
    found = []
    for number, canary in enumerate(canaries):
        context = context_of(defenses, number)
        batch = Batch(*examples(SIZE, canary))
        found.append(releases(defenses, context, count, lambda batch=batch: [batch]))
    return found


def pair_of_clients(defenses, count, canaries, clients=2):
    """The same of clients, one image each: one of two is the canary."""
    found = []
    for number, canary in enumerate(canaries):
        context = replace(context_of(defenses, number), clients=clients * BLOCKS, batch_size=1)
        parts = (each.split(1) for each in examples(clients, canary))
        batches = [Batch(*part) for part in zip(*parts, strict=True)]
        found.append(releases(defenses, context, count, lambda batches=batches: batches))
    return found


def pair_of_rounds(defenses, count, canaries):
    """Whole rounds of a training run, drawn as it draws them; a missing image leaves its place in the split empty."""
    found = []
    for number, canary in enumerate(canaries):
        context = context_of(defenses, number, rounds=1)
        drawn = draws(context, torch.Generator().manual_seed(number))
        inputs, labels = examples(2 * SIZE, canary)

        def batches(drawn=drawn, inputs=inputs, labels=labels):
            (chosen,) = next(drawn)
            chosen = chosen[chosen < len(inputs)]
            return [Batch(inputs[chosen], labels[chosen])]

        found.append(releases(defenses, context, count, batches))
    return found


def share_shown(one, other, stated):
    """The largest lower bound of epsilon over the stated one, over all deltas; above 1 the statement is refuted.

    Args:
        one, other: `[N, 2]`, releases of neighbours.
        stated: epsilon by delta. One pair of error bounds holds for all of them together.
    """
    pilot = int(PILOT * len(one))
    tries, best = len(one) - pilot, (-math.inf,)
    for statistic in _statistics(one[:pilot], other[:pilot]):
        for positive, negative in ((one, other), (other, one)):
            thresholds = np.quantile(statistic(negative[:pilot]), np.linspace(0, 0.995, 100))
            guesses = _shown(statistic, thresholds, positive[:pilot], negative[:pilot], stated, tries)
            place = int(guesses.argmax())
            if guesses[place] > best[0]:
                best = guesses[place], statistic, thresholds[[place]], positive[pilot:], negative[pilot:]
    return float(_shown(*best[1:], stated, tries)[0])


def _shown(statistic, thresholds, positive, negative, stated, tries):
    """For each threshold: the lower bound over the stated epsilon, as it would be of so many tries."""
    hits, alarms = (
        np.rint((statistic(each).numpy()[:, None] > thresholds).mean(0) * tries) for each in (positive, negative)
    )
    true = np.where(hits > 0, beta.ppf((1 - CONFIDENCE) / 2, hits, tries - hits + 1), 0)
    false = np.where(alarms < tries, beta.ppf((1 + CONFIDENCE) / 2, alarms + 1, tries - alarms), 1)
    bounds = [np.log(np.maximum(true - delta, 1e-12) / false) / epsilon for delta, epsilon in stated.items()]
    return np.max(bounds, axis=0)


def _statistics(one, other):
    """How far, how loud, and the log-likelihood ratio of two normal distributions of both; each of either sign."""
    fits = [torch.distributions.MultivariateNormal(each.mean(0), torch.cov(each.T)) for each in (one, other)]
    plain = [lambda x: x[:, 0], lambda x: x[:, 1], lambda x: fits[0].log_prob(x) - fits[1].log_prob(x)]
    return plain + [lambda x, plain=each: -plain(x) for each in plain]


def stated(spec, others=(), run=False, **context):
    """What the row says, by delta."""
    found = {}
    for delta in DELTAS:
        defenses = [create("defense", f"{spec},delta={delta}"), *others]
        described = replace(context_of([create("defense", f"{spec},delta=1e-9"), *others], 0), **context)
        promised = chain.guarantee(defenses, described)
        epsilon = promised.run_epsilon if run else promised.epsilon
        if epsilon and epsilon > 0.05:
            found[delta] = epsilon
    assert len(found) > 2
    return found


def made(spec, *others):
    return [create("defense", f"{spec},delta=1e-9"), *(create("defense", each) for each in others)]


NEIGHBOURS = {"poisson": (LOUD, None), "fixed": (LOUD, -LOUD)}


def dp(clipping="flat", sampling="poisson", on="step", epochs=1):
    """Noise that is worth as much in all: one Gaussian mechanism of noise multiplier 0.5."""
    noise = 0.5 * math.sqrt(epochs) * (1 if sampling == "poisson" else 2)
    return f"dp:clipping={clipping},sampling={sampling},on={on},noise_multiplier={noise},run_steps=1"


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
@pytest.mark.parametrize(
    ("others", "epochs", "count", "least"),
    [
        ([], 1, 4000, 0.7),  # what is stated 30 % too low would be refuted
        (["fedavg:epochs=2,lr=0.1"], 2, 4000, 0.7),
        ([f"fedavg:epochs=2,lr=0.1,momentum=0.5,local_batch_size={2 * BLOCKS}"], 2, 2000, 0.1),
        (["pruning:sparsity=0.1", "quantize", "clip:max_norm=0.1"], 1, 2000, 0.1),
    ],
    ids=["alone", "epochs", "local-batches", "post-processed"],
)
def test_no_release_shows_more_than_its_epsilon(clipping, sampling, others, epochs, count, least):
    spec = dp(clipping, sampling, epochs=epochs)
    defenses = made(spec, *others)
    shown = share_shown(*pair_of(defenses, count, NEIGHBOURS[sampling]), stated(spec, defenses[1:]))
    assert least < shown <= 1


@pytest.mark.parametrize(
    ("clipping", "sampling", "others"),
    [
        ("flat", "poisson", ()),
        ("per-layer", "fixed", ()),
        pytest.param("flat", "fixed", (), marks=pytest.mark.slow),
        pytest.param("per-layer", "poisson", (), marks=pytest.mark.slow),
        ("flat", "poisson", ["fedavg:epochs=1,lr=0.1"]),
    ],
)
def test_no_release_shows_more_of_a_client_than_its_epsilon(clipping, sampling, others):
    spec = dp(clipping, sampling, "update")
    defenses = made(spec, *others)
    shown = share_shown(*pair_of_clients(defenses, 1000, NEIGHBOURS[sampling]), stated(spec, defenses[1:]))
    assert 0.5 < shown <= 1


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_no_round_of_a_training_run_shows_more_than_its_epsilon(sampling):
    spec = dp(sampling=sampling)
    defenses = made(spec)
    said = stated(spec, run=True, rounds=1)
    shown = share_shown(*pair_of_rounds(defenses, 2000, NEIGHBOURS[sampling]), said)
    assert 0.1 < shown <= 1


class ByActualLength(DPSGD):
    """As dp, but sums are divided by how many there are: one more or less shows in the noise."""

    def step(self, gradient, parameters, batch, context):
        return super().step(gradient, parameters, replace(batch, size=len(batch.labels)), context)

    def average(self, update, parameters, batches, context):
        return super().average(update, parameters, batches, replace(context, clients=len(batches)))


@pytest.mark.parametrize("clipping", ["flat", pytest.param("per-layer", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("on", "others"),
    [
        ("step", []),
        ("step", [f"fedavg:epochs=1,lr=0.1,local_batch_size={2 * BLOCKS}"]),
        ("update", []),
    ],
)
def test_a_divisor_that_is_not_public_is_found_out(clipping, on, others):
    spec = dp(clipping, on=on)
    _, *rest = made(spec, *others)
    leaky = ByActualLength.model_validate({**create("defense", spec).model_dump(), "delta": 1e-9})
    pair = pair_of if on == "step" else pair_of_clients
    shown = share_shown(*pair([leaky, *rest], 1000, NEIGHBOURS["poisson"]), stated(spec, rest))
    assert shown > 1
