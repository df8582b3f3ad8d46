"""R-GAP recovers one image exactly where every layer can be gone back through, and says where one cannot."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.attacks.r_gap import RGAP
from gibench.attacks.r_gap import equations as module
from gibench.attacks.r_gap.equations import Equations
from gibench.attacks.r_gap.logits import slopes_of_gradient
from gibench.datasets.digits import Digits
from gibench.defenses.fedavg import FedAvg
from gibench.defenses.none import NoDefense
from gibench.observation import ThreatModel

LEAKY = nn.LeakyReLU(0.2)


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def cnn(activation=LEAKY, bias=True, channels=(6, 24), classes=10):
    """Two convolutions of stride 2 and two linear layers, for 1x8x8 images."""
    first, second = channels
    return nn.Sequential(
        *(nn.Conv2d(1, first, 3, 2, 1, bias=bias), activation),
        *(nn.Conv2d(first, second, 3, 2, 1, bias=bias), activation),
        nn.Flatten(),
        *(nn.Linear(4 * second, 30, bias=bias), activation, nn.Linear(30, classes, bias=bias)),
    )


def observe(digits, network, dtype=torch.float64, size=1, defense=None, seed=0):
    truth = batches.draw(digits, size, "iid", 1, seeds.generator(seed, "data"))
    arguments = [defense or NoDefense()], ThreatModel(), seeds.generator(seed, "defense"), size, 20
    return client.observe(network.to(dtype), digits, truth, *arguments).observation, truth


def recover(observation):
    attack = RGAP()
    assert attack.supports(observation) is None
    return attack.reconstruct(observation, Context(torch.Generator(), torch.device("cpu")))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [LEAKY, nn.Tanh(), nn.Sigmoid()])
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-7), (torch.float32, 1e-4)])
def test_a_network_that_can_be_inverted_gives_its_image(digits, activation, bias, dtype, precision):
    torch.manual_seed(1)
    observation, truth = observe(digits, cnn(activation, bias), dtype, seed=1)
    found = recover(observation)
    assert (found.images.double() - truth.images).abs().max() < precision
    assert found.labels.tolist() == truth.labels.tolist()
    assert set(found.diagnostics["rank_deficiency"].values()) == {0}
    assert found.diagnostics["finding"] == ""


def test_the_scale_of_a_local_training_step_is_of_no_account_with_biases(digits):
    torch.manual_seed(0)
    observation, truth = observe(digits, cnn(), defense=FedAvg(epochs=1, lr=1e-3))
    assert (recover(observation).images.double() - truth.images).abs().max() < 1e-5


@given(st.integers(0, 10**6), st.integers(3, 8), st.floats(-1.5, 0.5))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_what_the_logits_send_back_is_found_without_their_bias(seed, classes, power):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 12, generator=generator, dtype=torch.float64)
    inputs = 10**power * torch.randn(12, generator=generator, dtype=torch.float64)
    slopes = (weight @ inputs).softmax(0) - F.one_hot(torch.tensor(seed % classes), classes)
    found = slopes_of_gradient(weight, torch.zeros(classes).double(), torch.outer(slopes, inputs))
    torch.testing.assert_close(found, slopes, rtol=1e-6, atol=0)


@pytest.mark.parametrize("options", [(3, 2, 1, 1), (4, 2, 2, 1), (3, 1, 0, 1), ((2, 3), (1, 2), (0, 1), (2, 1))])
def test_the_equations_are_those_of_autograd(options):
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, *options[:3], dilation=options[3]).double()
    inputs = torch.randn(1, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    outputs = convolution(inputs) - convolution.bias[:, None, None]
    slopes = torch.randn_like(outputs)
    gradient, back = torch.autograd.grad(outputs, [convolution.weight, inputs], slopes)
    flat = slopes[0].flatten(1)
    known = torch.ones_like(flat, dtype=torch.bool)
    equations = Equations(convolution, (2, 9, 8), convolution.weight.detach().flatten(1), known, flat)
    made = equations.forward(inputs.detach().flatten(1))
    torch.testing.assert_close(made[0][0], outputs[0].detach().flatten(1))
    torch.testing.assert_close(made[1][0], gradient.flatten(1))
    torch.testing.assert_close(equations.adjoint(flat[None], torch.zeros_like(made[1]))[0], back.flatten())
    others, right = torch.randn(1, 144).double(), [torch.randn_like(each) for each in made]
    inner = sum((one * other).sum() for one, other in zip(equations.forward(others), right, strict=True))
    torch.testing.assert_close(inner, (others * equations.adjoint(*right)).sum())


def test_what_is_too_large_for_singular_values_is_solved_all_the_same(digits, monkeypatch):
    torch.manual_seed(0)
    observation, truth = observe(digits, cnn())
    monkeypatch.setattr(module, "_DENSE", 0)
    assert (recover(observation).images.double() - truth.images).abs().max() < 1e-4


def test_equations_that_are_too_few_are_counted_and_a_relu_loses_some(digits):
    torch.manual_seed(0)
    found = recover(observe(digits, cnn(channels=(8, 2)))[0])
    name, deficiency = max(found.diagnostics["rank_deficiency"].items(), key=lambda each: each[1])
    assert name == "2"
    assert 0 < deficiency < found.diagnostics["unknowns"][name]
    assert "numbers open" in found.diagnostics["finding"]
    torch.manual_seed(0)
    lost = recover(observe(digits, cnn(nn.ReLU(), channels=(8, 2)))[0])
    assert lost.diagnostics["equations"][name] < found.diagnostics["equations"][name]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, images):
        flat = images.flatten(1)
        return self.last(flat + self.first(flat).relu())


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)), "MaxPool2d"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)), "'0' has none"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.LeakyReLU(0.0), nn.Linear(9, 10)), "a slope of 0"),
        (nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), "a linear layer that gives the logits"),
        (nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(256, 10)), "zeros"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Tanh(), nn.Linear(9, 10)), "one activation"),
        (nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)), "before '_0'"),
        (Residual(), "a chain of layers"),
    ],
)
def test_other_networks_are_refused_with_the_reason(digits, network, reason):
    assert reason in RGAP().supports(observe(digits, network)[0])


def test_a_batch_and_an_unknown_scale_are_refused(digits):
    assert "a batch of 1" in RGAP().supports(observe(digits, cnn(), size=2)[0])
    truth = batches.draw(digits, 1, "iid", 1, seeds.generator(0, "data"))
    arguments = [FedAvg()], ThreatModel.parse("nothing"), seeds.generator(0, "defense"), 1, 20
    observation = client.observe(cnn(bias=False), digits, truth, *arguments).observation
    assert "needs the gradient's scale" in RGAP().supports(observation)
    two = replace(observe(digits, cnn())[0], model=cnn(bias=False, classes=2))
    assert "needs three classes" in RGAP().supports(two)
