"""Planted linear-layer gradients, whose factors are known, and real ones from a client with photographs."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.attacks.exact.activation import RELU, Activation
from gibench.attacks.exact.layers import InputLayer
from gibench.attacks.exact.linear_layer import LayerGradient
from gibench.attacks.exact.low_rank import Factors, factorize
from gibench.attacks.exact.refine import Directions
from gibench.datasets.base import Images, Split
from gibench.datasets.photos import Photos
from gibench.defenses.dp import DPSGD
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import Observation, ThreatModel


@dataclass(frozen=True)
class Planted:
    """A linear layer's gradient with all that it was made of, in float64."""

    layer: InputLayer
    inputs: Tensor  # X [B, n]
    columns: Tensor  # G^T [m, B]
    zeros: Tensor  # [m, B], where a neuron is inactive
    weight_gradient: Tensor  # [m, n]
    bias_gradient: Tensor  # [m]

    def factors(self) -> Factors:
        """What the attack reads off the gradient."""
        factors = factorize(self.weight_gradient, self.bias_gradient, torch.Generator().manual_seed(0))
        assert factors is not None
        return factors

    def gradient(self, factors: Factors) -> LayerGradient:
        """All that the attack reads of it."""
        live = torch.ones(len(self.bias_gradient), dtype=torch.bool)
        return LayerGradient(self.layer, self.weight_gradient, self.bias_gradient, factors, live)

    def truth(self, factors: Factors) -> Directions:
        """The true directions in the basis of `factors`, with their zeros."""
        vectors = factors.basis.T @ self.columns
        return Directions(vectors / vectors.norm(dim=0), self.zeros)


def plant(
    batch_size: int = 8,
    neurons: int = 100,
    size: int = 40,
    seed: int = 0,
    sigma: float = 0.0,
    inputs: Tensor | None = None,
    activation: Activation = RELU,
) -> Planted:
    """A gradient of a random layer for gaussian (or the given) inputs, white noise of std `sigma` on each entry."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, bias = normal(neurons, size) / size**0.5, normal(neurons) / 3
    if inputs is None:
        inputs = normal(batch_size, size)
    zeros = (weight @ inputs.T + bias[:, None] <= 0) & activation.sparse
    columns = normal(neurons, len(inputs)).masked_fill(zeros, 0.0)
    return Planted(
        InputLayer("0", weight, bias, activation=activation),
        inputs,
        columns,
        zeros,
        columns @ inputs + sigma * normal(neurons, size),
        columns.sum(dim=1) + sigma * normal(neurons),
    )


def plant_near_duplicates(
    differing: int, batch_size: int = 20, neurons: int = 200, size: int = 300, seed: int = 0
) -> Planted:
    """A gradient whose first two images activate all but `differing` neurons alike, each some that the other does not.

    A direction whose zeros are all zeros of the other one would be determined by nothing.
    """
    first = plant(batch_size, neurons, size, seed)
    start = first.layer.weight @ first.inputs[0] + first.layer.bias
    for other in plant(batch_size, neurons, size, seed + 1000).inputs:  # none of them in the batch
        step = other - first.inputs[0]
        crossings = -start / (first.layer.weight @ step)  # how far along the step each neuron changes sides
        inputs = first.inputs.clone()
        inputs[1] = inputs[0] + step * crossings[crossings > 0].sort().values[differing - 1 : differing + 1].mean()
        planted = plant(neurons=neurons, size=size, seed=seed, inputs=inputs)  # the layer is drawn first: the same
        own = planted.zeros[:, 0] ^ planted.zeros[:, 1]
        if int((own & planted.zeros[:, 0]).sum()) in range(2, differing - 1):
            assert int(own.sum()) == differing
            return planted
    raise AssertionError("no pair of images has the overlap asked for")


@pytest.fixture(name="plant", scope="session")
def plant_fixture():
    """Function that plants a gradient."""
    return plant


@pytest.fixture(name="plant_near_duplicates", scope="session")
def plant_near_duplicates_fixture():
    """Function that plants a gradient of two near-duplicates and other images."""
    return plant_near_duplicates


def gap(one: Tensor, other: Tensor) -> Tensor:
    """How far each column of `one` is from the nearest of `other`, up to sign: the length of their difference."""
    signed = torch.cat([other, -other], dim=1)
    return (one[:, :, None] - signed[:, None]).norm(dim=0).amin(dim=1)


@pytest.fixture(scope="session")
def distance():
    """Function that gives the distance of each unit vector to the nearest of others, up to sign."""
    return gap


@pytest.fixture(scope="session")
def photos():
    """The embedded photographs."""
    return Photos().load()


@dataclass(frozen=True)
class Seen:
    """An observation and the private batch behind it."""

    truth: Split
    observation: Observation
    images: Images

    def exact(self, images: Tensor) -> Tensor:
        """Which of the reconstructed images round to a true one, `[N]`; a true image counts once."""
        errors = (images[:, None] - self.truth.images[None]).abs().flatten(2).amax(dim=2) < 1 / 510
        taken = torch.zeros(len(self.truth), dtype=torch.bool)
        right = []
        for row in errors:
            free = (row & ~taken).nonzero()[:, 0]
            right.append(len(free) > 0)
            taken[free[:1]] = True
        return torch.tensor(right, dtype=torch.bool)


@pytest.fixture(scope="session")
def see(photos):
    """Function that lets a real client with photographs compute its update."""

    def observe(
        batch_size=20, seed=0, noise=0.0, labels="iid", width=200, depth=5, model=None, knows=None, truth=None
    ) -> Seen:
        truth = truth or batches.draw(photos, batch_size, labels, 1, seeds.generator(seed, "data"))
        with seeds.isolated(seed, "model"):
            built = MLP(width=width, depth=depth).build(photos.image_shape, photos.num_classes)
        defense = DPSGD(noise_multiplier=noise) if noise else NoDefense()
        threat_model = ThreatModel() if knows is None else ThreatModel.parse(knows)
        generator = seeds.generator(seed, "defense")
        release = client.observe(model or built, photos, truth, [defense], threat_model, generator, len(truth))
        return Seen(truth, release.observation, photos)

    return observe


@pytest.fixture(scope="session")
def context():
    """Function that gives an attack's context."""

    def make(seed=0, **options):
        return Context(seeds.generator(seed, "attack"), torch.device("cpu"), **options)

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices are faster on one thread, and results do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
