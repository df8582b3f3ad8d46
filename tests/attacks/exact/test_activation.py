"""Activations: their slopes against derivatives, and which of a network's nodes are one."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from gibench.attacks.exact.activation import activation_at

APPLIED = {
    "ReLU": (nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, lambda x: x.relu(), lambda x: F.relu(input=x)),
    "LeakyReLU": (nn.LeakyReLU(0.2, inplace=True), lambda x: F.leaky_relu(x, 0.2)),
    "GELU": (nn.GELU(), F.gelu, nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "SiLU": (nn.SiLU(inplace=True), F.silu),
    "Tanh": (nn.Tanh(), torch.tanh, F.tanh, lambda x: x.tanh()),
    "Sigmoid": (nn.Sigmoid(), torch.sigmoid, lambda x: x.sigmoid()),
}
CASES = [(name, applied) for name, cases in APPLIED.items() for applied in cases]


def found(applied):
    """What is seen of an activation in a network that applies it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.applied = applied if isinstance(applied, nn.Module) else nn.Identity()

        def forward(self, x):
            return self.applied(x) if isinstance(applied, nn.Module) else applied(x)

    net = Net()
    node = next(node for node in fx.symbolic_trace(net).graph.nodes if node.op.startswith("call"))
    return activation_at(node, dict(net.named_modules()))


@pytest.mark.parametrize(("name", "applied"), CASES)
def test_an_activation_is_the_function_that_the_network_applies(name, applied):
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    activation = found(applied)
    assert activation.name == name
    held = values.clone().requires_grad_()
    made = applied(held.clone())
    slopes = torch.autograd.grad(made.sum(), held)[0]
    torch.testing.assert_close(activation.function(values), made.detach())
    torch.testing.assert_close(activation.slopes(values).to(slopes), slopes)
    seen, again = activation.with_slopes(values.clone())
    torch.testing.assert_close(seen, made.detach())
    torch.testing.assert_close(again.to(slopes), slopes)


@pytest.mark.parametrize(
    "applied",
    [
        nn.Hardtanh(),
        nn.ReLU6(),
        nn.PReLU(),
        nn.Dropout(),
        F.elu,
        lambda x: x + 1,
        lambda x: x * x,
        lambda x: F.gelu(x + x),
    ],
)
def test_what_is_not_known_is_none(applied):
    assert found(applied) is None


@pytest.mark.parametrize(("name", "applied"), CASES)
def test_a_slope_turns_only_where_it_is_said_that_it_may(name, applied):
    activation = found(applied)
    generator = torch.Generator().manual_seed(0)
    values = 3 * torch.randn(2000, generator=generator, dtype=torch.float64)
    reach = 0.5 * torch.rand(2000, generator=generator, dtype=torch.float64)
    moved = values + reach * (2 * torch.rand(2000, generator=generator, dtype=torch.float64) - 1)
    change = (activation.slopes(moved).double() - activation.slopes(values).double()).abs()
    turns = activation.turns(values, reach)
    assert turns.any()
    assert not turns.all()
    assert change[~turns].max() <= (0.1 if activation.smooth else 0)
