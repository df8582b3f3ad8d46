"""SPEAR: exact batches from a ReLU layer's gradient by sampling sets of rows that are zero for one image."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation

from .linear_layer import LayerGradient, read_gradient, unsupported
from .spearpp.assemble import Batch, assemble
from .spearpp.refine import Directions, distinct, refine
from .spearpp.select import independent, swap
from .spearpp.tail import complement

_NEAR = 1e-3  # of the largest entry: what counts as zero in float32, before the null vector is made exact
_KNOWN = 0.99999  # cosine from which a null vector is one found before, unless it has more zeros
_KEPT = 16  # times B: candidates kept, the sparsest; near-duplicate images bring ever more mixtures
_BETWEEN = 10  # chunks of draws from one selection to the next


class Spear(Attack):
    """Recovers every image of a batch from the gradient of the first linear layer, which a ReLU follows, by sampling.

    If B - 1 rows of the gradient's factor L are all zero for one image, their null vector is that image's direction.
    Random sets of rows are drawn until B independent directions are found whose images agree with them (lambda = 1).
    With half of the entries zero the draws needed grow like 2^(B - 1): `expected_draws` says how many, from B and the
    layer's width alone, and an exhausted budget is the status `budget_exhausted` with the images found so far.

    Deviations from the paper: a kept null vector is made exact by its own zero rows until they are stable, so that its
    zeros need no tolerance of their own; and candidates are tested for sparsity by `sparsity` and 1.25 B zeros at
    least, since any set of B - 1 rows gives B - 1 zeros. All images are certified when lambda of the batch is 1.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Dimitrov et al., SPEAR: Exact Gradient Inversion of Batches in Federated Learning, NeurIPS 2024, "
        "arXiv 2403.03945",
    )

    draws: int = Field(20_000_000, ge=1, description="budget: row sets drawn at most")
    chunk: int = Field(10_000, ge=1, description="row sets drawn at a time")
    sparsity: float = Field(0.2, gt=0, lt=1, description="share of zeros from which a null vector is kept")

    def supports(self, observation: Observation) -> str | None:
        return unsupported(observation)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        gradient = read_gradient(observation, context.generator)
        if gradient is None:
            images = torch.zeros(0, *observation.image_shape, device=context.device)
            return Reconstruction(images, diagnostics={"finding": "the singular values show no rank gap", "rank": 0})
        factors = gradient.factors
        batch, missing, drawn = self._sample(gradient, context)
        matches = batch.matches and not missing
        short = not matches and not context.expired()
        order = batch.matching.argsort(descending=True, stable=True)
        images = observation.denormalize(batch.inputs.view(-1, *observation.image_shape))
        return Reconstruction(
            images.nan_to_num(0.5, 1, 0)[order],
            certified=torch.full_like(order, matches, dtype=torch.bool),
            diagnostics={
                "rank": factors.rank,
                "sigma": factors.sigma,
                "singular_value_gap": factors.gap,
                "directions_found": factors.rank - missing,
                "sparsity_matching": float(batch.agree.sum() / batch.votes.sum().clamp_min(1)),
                "draws": drawn,
                "expected_draws": expected_draws(factors.rank, len(gradient.bias)),
            },
            status="budget_exhausted" if short else "ok",
            reason=f"{drawn} row sets did not show the whole batch: raise draws" if short else "",
        )

    def _sample(self, gradient: LayerGradient, context: Context) -> tuple[Batch, int, int]:
        """The best batch, how many of its directions are only filled in, and how many sets were drawn."""
        factors = gradient.factors
        basis = factors.basis.float()
        rank = factors.rank
        fewest = max(self.sparsity * len(basis), 1.25 * rank) if rank > 1 else 0
        found = Directions(factors.basis.new_zeros(rank, 0), torch.zeros_like(basis, dtype=torch.bool)[:, :0])
        drawn, news, chunks = 0, False, 0
        while True:
            vectors = null_vectors(basis, min(self.chunk, self.draws - drawn), context.generator)
            drawn += vectors.shape[1]
            columns = (basis @ vectors).abs()
            zeros = (columns <= _NEAR * columns.amax(dim=0)).sum(dim=0)
            sparse = zeros >= fewest
            if len(found):
                near = (found.vectors.float().T @ vectors).abs() > _KNOWN
                sparse &= zeros > (near * found.zeros.sum(dim=0)[:, None]).amax(dim=0)
            if bool(sparse.any()):
                found = distinct(found.join(refine(factors, vectors[:, sparse])))
                found = found.select(torch.arange(min(len(found), _KEPT * rank), device=found.vectors.device))
                news = True
            chunks += 1
            done = drawn >= self.draws or context.expired()
            context.progress(f"{drawn} row sets drawn, {len(found)} directions", drawn / self.draws)
            if done or (news and len(found) >= rank and (chunks <= 1 or chunks % _BETWEEN == 0)):
                news = False
                best, missing = _select(gradient, found)
                if done or (best.matches and not missing):
                    return best, missing, drawn


def null_vectors(basis: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Unit null vectors `[B, count]` of random sets of B - 1 rows of L `[m, B]`, each cut from a permutation of all."""
    m, rank = basis.shape
    size = max(rank - 1, 1)
    a_permutation = m // size
    permutations = torch.rand(-(-count // a_permutation), m, generator=generator, device=basis.device).argsort(dim=1)
    sets = permutations[:, : a_permutation * size].reshape(-1, size)[:count]
    rows = basis[sets]  # [count, B - 1, B]
    if rank == 1:
        return basis.new_ones(1, count)
    solution, _ = torch.linalg.solve_ex(rows[:, :, :-1], rows[:, :, -1])  # with the last coordinate -1
    vectors = torch.cat([solution, -torch.ones_like(solution[:, :1])], dim=1).T
    unit: Tensor = vectors / vectors.norm(dim=0)
    return unit.nan_to_num(0)


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


def _select(gradient: LayerGradient, found: Directions) -> tuple[Batch, int]:
    """The two-stage greedy selection of the paper (section 4): the sparsest, then swaps that raise lambda."""
    factors = gradient.factors
    order = torch.arange(len(found), device=found.vectors.device)  # `distinct` has sorted them by zeros
    members = independent(found.vectors, order, factors.rank)
    missing = factors.rank - len(members)

    def made_of(directions: Directions) -> Batch:
        return assemble(gradient, directions)

    if missing:
        chosen = found.select(order[members])
        zeros = torch.zeros(len(factors.basis), missing, dtype=torch.bool, device=order.device)
        return made_of(chosen.join(Directions(complement(chosen.vectors), zeros))), missing
    others = [index for index in order.tolist() if index not in members]
    return swap(found, members, others, made_of)[1], 0
