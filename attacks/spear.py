"""SPEAR: exact batches from a ReLU layer's gradient by sampling sets of rows that are zero for one image."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation

from .exact.assemble import Batch, assemble
from .exact.certify import certify, confirmed
from .exact.linear_layer import LayerGradient, read_gradient, without_zeros
from .exact.purity import examine
from .exact.refine import Directions, distinct, no_directions, refine
from .exact.select import filled_up, greedy, independent
from .exact.witness import read_second, unaccounted

_NEAR = 1e-3  # of the largest entry: what counts as zero in float32, before the null vector is made exact
_KNOWN = 0.99999  # cosine from which a null vector is one found before, unless it has more zeros
_MORE = 2  # zeros: what rounding may add; a nearly parallel mixture has fewer, and must not hide what it is made of
_REFINED = 256  # candidates of one chunk made exact; small batches have thousands, nearly all repetitions
_KEPT = 16  # times B: candidates kept beside the sparsest independent ones, the sparsest first
_ENTRIES = 2**26  # of all row sets drawn at a time: a quarter of a gigabyte
_GROWTH = 2  # of the draws from one selection with swaps to the next


class Spear(Attack):
    """Recovers every image of a batch from the gradient of the first linear layer, which a ReLU follows, by sampling.

    If B - 1 rows of the gradient's factor L are all zero for one image, their null vector is that image's direction.
    Random sets of rows are drawn until B independent directions are found whose images agree with them (lambda = 1).
    With half of the entries zero the draws needed grow like 2^(B - 1): `expected_draws` says how many, from B and the
    layer's width alone, and an exhausted budget is the status `budget_exhausted` with the images found so far.

    The prediction is for columns that are half zero. At B = 20 and m = 200 it says 4.8 million, and a single column
    with 45% of zeros takes 12 million.

    Deviations from the paper: a kept null vector is made exact by its own zero rows until they are stable, so that its
    zeros need no tolerance of their own; candidates are tested for sparsity by `sparsity` and 1.25 B zeros at least,
    since any set of B - 1 rows gives B - 1 zeros; null vectors are found without pivoting, which loses three hits in a
    thousand to rounding; lambda of the sparsest independent candidates is tested each time they change, and swaps are
    tried each time the draws have doubled. Nothing is certified before lambda of the whole batch is 1, and then the
    images that also pass the tests of `exact/certify.py`.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Dimitrov et al., SPEAR: Exact Gradient Inversion of Batches in Federated Learning, NeurIPS 2024, "
        "arXiv 2403.03945",
    )

    draws: int = Field(100_000_000, ge=1, description="budget: row sets drawn at most")
    chunk: int = Field(10_000, ge=1, description="row sets drawn at a time")
    sparsity: float = Field(0.2, gt=0, lt=1, description="share of zeros from which a null vector is kept")

    @property
    def budget(self) -> str:
        return f"{self.draws:,} draws"

    def supports(self, observation: Observation) -> str | None:
        return without_zeros(observation)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        gradient = read_gradient(observation, context.generator)
        if gradient is None:
            images = torch.zeros(0, *observation.image_shape, device=context.device)
            return Reconstruction(images, diagnostics={"finding": "the singular values show no rank gap", "rank": 0})
        factors = gradient.factors
        expected = expected_draws(factors.rank, len(gradient.bias))
        batch, missing, drawn = self._sample(gradient, expected, context)
        matches = batch.matches and not missing
        short = not matches and not context.expired()
        certified, withheld = torch.zeros_like(batch.matching, dtype=torch.bool), ""
        if matches:
            second = read_second(observation, gradient, context.generator)
            batch, scales = confirmed(gradient, second, batch)
            withheld = unaccounted(observation, gradient, factors.rank, second)
            if scales is not None and not withheld:
                pure = examine(factors, batch.directions).pure
                certified = certify(factors, batch, pure, observation.std.to(batch.inputs)) & scales.sharp
        order = (2.0 * certified + batch.matching).argsort(descending=True, stable=True)
        images = observation.denormalize(batch.inputs.view(-1, *observation.image_shape))
        return Reconstruction(
            images.nan_to_num(0.5, 1, 0)[order],
            certified=certified[order],
            diagnostics={
                "rank": factors.rank,
                "sigma": factors.sigma,
                "singular_value_gap": factors.gap,
                "directions_found": factors.rank - missing,
                "sparsity_matching": float(batch.agree.sum() / batch.votes.sum().clamp_min(1)),
                "draws": drawn,
                "expected_draws": expected,
                "withheld": withheld,
            },
            status="budget_exhausted" if short else "ok",
            reason=f"{drawn} row sets did not show the whole batch, expected were {expected:.2g}: raise draws"
            if short
            else "",
        )

    def _sample(self, gradient: LayerGradient, expected: float, context: Context) -> tuple[Batch, int, int]:
        """The best batch, how many of its directions are only filled in, and how many sets were drawn."""
        factors = gradient.factors
        basis = factors.basis.float()
        rank = factors.rank
        layer = len(gradient.live)  # the neurons without a gradient are zeros of every column, and left out of L
        fewest = max(self.sparsity * layer - (layer - len(basis)), 1.25 * rank) if rank > 1 else 0
        found = sparsest = no_directions(factors)
        chunk = min(self.chunk, max(1, _ENTRIES // rank**2))
        drawn, due, news = 0, 0, False
        while True:
            done = drawn >= self.draws or context.expired()
            context.progress(
                f"{drawn} row sets drawn of about {expected:.2g}, {len(sparsest)} of {rank} directions",
                drawn / self.draws,
            )
            swaps = done or drawn >= due
            if done or (len(sparsest) == rank and (news or swaps)):
                best, missing = _select(gradient, found, swaps)
                if done or (best.matches and not missing):
                    return best, missing, drawn
                due, news = _GROWTH * drawn if swaps else due, False
            vectors = null_vectors(basis, min(chunk, self.draws - drawn), context.generator)
            drawn += vectors.shape[1]
            zeros = count_zeros(basis, vectors)
            sparse = (zeros >= fewest).nonzero()[:, 0]
            if len(sparse) and len(found):
                near = (found.vectors.float().T @ vectors[:, sparse]).abs() > _KNOWN
                sparse = sparse[zeros[sparse] > (near * (found.zeros.sum(dim=0) + _MORE)[:, None]).amax(dim=0)]
            if len(sparse):
                found = distinct(found.join(refine(factors, vectors[:, sparse[:_REFINED]])))
                found, members = _trim(found)
                before, sparsest = sparsest, found.select(members)
                news = not torch.equal(before.zeros, sparsest.zeros)


def draw_sets(rows: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Random sets of `size` out of `rows` rows, one a column: `[size, count]`, each set as likely as any other.

    By Floyd's algorithm (Bentley and Floyd, 1987): the k-th draw is from the first `rows - size + k + 1`, and where it
    is taken already, the last of these, which cannot be, takes its place.
    """
    sets = torch.empty(size, count, dtype=torch.long, device=generator.device)
    for k in range(size):
        last = rows - size + k
        drawn = torch.randint(last + 1, (count,), generator=generator, device=generator.device)
        sets[k] = torch.where((sets[:k] == drawn).any(dim=0), last, drawn)
    return sets


def null_vectors(basis: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Unit null vectors `[B, count]` of random sets of B - 1 rows of L `[m, B]`; zero where a set does not give one.

    Gaussian elimination of all sets at once, each step over contiguous memory: several times as fast as a batched
    solver, which takes one small matrix after the other.
    """
    m, rank = basis.shape
    size = rank - 1
    sets = draw_sets(m, size, count, generator)
    rows = basis.T.contiguous().index_select(1, sets.flatten()).view(rank, size, count).transpose(0, 1)
    for k in range(size):
        rows[k, k + 1 :] /= rows[k, k].clone()
        rows[k + 1 :, k + 1 :].addcmul_(rows[k + 1 :, k, None], rows[None, k, k + 1 :], value=-1)
    vectors = basis.new_full((rank, count), -1)
    for k in reversed(range(size)):
        vectors[k] = -(rows[k, k + 1 :] * vectors[k + 1 :]).sum(dim=0)
    unit: Tensor = vectors / vectors.norm(dim=0)
    return unit.nan_to_num(0, 0, 0)


def count_zeros(basis: Tensor, vectors: Tensor) -> Tensor:
    """How many entries of each column of `L q` are about zero in float32, `[K]`; none where q is zero."""
    columns = (basis @ vectors).abs_()
    limit = _NEAR * columns.amax(dim=0)
    return basis.new_ones(len(basis)) @ columns.lt_(limit)  # a product, since summing booleans is slow


def expected_draws(rank: int, rows: int) -> float:
    """Row sets to draw, on average, until each of B directions has come up once, if half of each column is zero.

    One direction comes up with probability p = C(m/2, B-1) / C(m, B-1), and all B of them after about H_B / p draws.
    """
    half, size = rows // 2, rank - 1
    if size > half:
        return math.inf

    def log_choose(n: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(size + 1) - math.lgamma(n - size + 1)

    harmonic = sum(1 / k for k in range(1, rank + 1))
    return harmonic * math.exp(min(log_choose(rows) - log_choose(half), 700.0))


def _trim(found: Directions) -> tuple[Directions, Tensor]:
    """The sparsest independent candidates and the sparsest others; and which are the former.

    A true direction has more zeros than the mixtures it is part of, so the sparsest independent ones are all true once
    all have come up. But the mixtures of two near-duplicates can have more zeros than a third image, and there may be
    any number of them.
    """
    rank = len(found.vectors)
    members = _sparsest(found)
    others = sorted(set(range(len(found))) - set(members))[: _KEPT * rank]
    kept = torch.tensor(sorted(members + others), dtype=torch.long, device=found.vectors.device)
    return found.select(kept), torch.isin(kept, kept.new_tensor(members)).nonzero()[:, 0]


def _sparsest(found: Directions) -> list[int]:
    """The sparsest independent candidates; `distinct` has sorted them by zeros."""
    return independent(found.vectors, torch.arange(len(found)), len(found.vectors))


def _select(gradient: LayerGradient, found: Directions, swaps: bool) -> tuple[Batch, int]:
    """The two-stage greedy selection of the paper (section 4): the sparsest, then, if asked, swaps that raise lambda.

    Returns:
        The batch, and how many of its directions are not found but only filled in.
    """

    def made_of(directions: Directions) -> Batch:
        return assemble(gradient, directions)

    order = torch.arange(len(found), device=found.vectors.device)
    members, batch = greedy(found, order, made_of, None if swaps else 0)
    if batch is not None:
        return batch, 0
    chosen = found.select(order[members])
    return made_of(filled_up(gradient.factors, chosen)), gradient.factors.rank - len(chosen)
