"""A real batch of a network of one hidden layer."""

import copy
import functools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from gibench.attacks.exact.linear_layer import LayerGradient, read_gradient
from gibench.attacks.exact.refine import Directions, zero_rows
from gibench.attacks.two_valued.backward import Backward, head_of, read_backward
from gibench.attacks.two_valued.signals import Signed, fit_signals


@dataclass(frozen=True)
class Shallow:
    """A real batch of a network of one hidden layer: what the attack reads off its gradient, and the truth."""

    seen: object
    gradient: LayerGradient
    backward: Backward
    columns: Tensor  # G^T [m, B] of the live neurons, by autograd, in float64
    residuals: Tensor  # (p - e_y) / B, [C, B]

    @property
    def factors(self):
        return self.gradient.factors

    @property
    def labels(self):
        return self.seen.truth.labels

    @property
    def active(self):
        return self.columns != 0

    def truth(self) -> Directions:
        vectors = self.factors.basis.T @ self.columns
        return Directions(vectors / vectors.norm(dim=0), ~self.active)

    def signed(self, vectors: Tensor) -> Signed:
        """Any directions with the signals that suit their supports best, as an attack would have them."""
        fitted = fit_signals(self.factors, self.backward, ~zero_rows(self.factors, vectors))
        return replace(fitted, directions=replace(fitted.directions, vectors=vectors))


@pytest.fixture(scope="session")
def shallow(see):
    """Function that makes one, once."""

    @functools.cache
    def make(batch_size=8, width=60, seed=0, **options) -> Shallow:
        seen = see(batch_size, seed, width=width, depth=1, **options)
        gradient = read_gradient(seen.observation, torch.Generator().manual_seed(0))
        backward = read_backward(seen.observation, gradient, *head_of(seen.observation))
        _, first, relu, head = seen.observation.model
        first, head = copy.deepcopy(first).double(), copy.deepcopy(head).double()
        hidden = first(seen.observation.normalize(seen.truth.images).flatten(1).double()).detach().requires_grad_()
        logits = head(relu(hidden))
        logits.retain_grad()
        nn.functional.cross_entropy(logits, seen.truth.labels).backward()
        return Shallow(seen, gradient, backward, hidden.grad.T[gradient.live], logits.grad.T)

    return make
