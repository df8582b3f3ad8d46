"""The graph of a network's calls says what each value is where it is used, also where one was written over."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gibench.graph import trace, used_elsewhere


class Forward(nn.Module):
    """A network whose forward pass is given."""

    def __init__(self, forward):
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), nn.LeakyReLU(0.1, inplace=True)
        self.pass_on = forward

    def forward(self, x):
        x = self.layer(x)
        return x + self.pass_on(self, x)


WRITES = {
    "a method": lambda self, x: x.relu_(),
    "a function": lambda self, x: torch.tanh_(x),
    "an argument": lambda self, x: F.leaky_relu(x, inplace=True),
    "an argument by its place": lambda self, x: F.relu(x, True),
    "a module": lambda self, x: self.act(x),
    "arithmetic": lambda self, x: x.mul_(2),
}
LEAVES = {
    "a method": lambda self, x: x.relu(),
    "an argument": lambda self, x: F.leaky_relu(x, inplace=False),
    "Python's and": lambda self, x: ((above := x > 0) & (x < 0.1)) | above,
}


@pytest.mark.parametrize(("way", "writes"), [*((each, True) for each in WRITES), *((each, False) for each in LEAVES)])
def test_what_uses_a_value_after_it_was_written_over_uses_what_wrote(way, writes):
    model, images = Forward((WRITES if writes else LEAVES)[way]), torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(trace(model)(images), model(images))
    nodes = list(trace(model).graph.nodes)
    total = nodes[-2]
    assert (nodes[1] in total.all_input_nodes) != writes


class Layers(nn.Module):
    """Two layers with normalisation between, of which the first is used as is given."""

    def __init__(self, use):
        super().__init__()
        self.first, self.norm, self.last, self.use = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), use

    def forward(self, x):
        x = x.flatten(1) * (1 if float(x.max()) < 1e6 else 2)  # no graph is made of this
        return self.last(self.norm(self.use(self.first, self.first(x).relu_())))


USES = {
    "not again": (lambda layer, x: x, False),
    "for its kind": (lambda layer, x: x.to(layer.weight.dtype).view(-1, layer.weight.shape[0]), False),
    "by its numbers alone": (lambda layer, x: x * layer.weight.detach().norm(), False),
    "transposed": (lambda layer, x: F.linear(x, layer.weight.T), True),
    "its bias": (lambda layer, x: x + layer.bias, True),
    "its length": (lambda layer, x: x * layer.weight.norm(), True),
}


@pytest.mark.parametrize("way", USES)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_used_once_more_is_seen_without_a_graph(way, training):
    use, elsewhere = USES[way]
    model, alone = Layers(use).train(training), nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    before, drawn = {name: each.clone() for name, each in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():
        assert used_elsewhere(model, "first", (1, 2, 2)) is elsewhere
    assert not used_elsewhere(model, "last", (1, 2, 2))
    assert not used_elsewhere(alone, "1", (1, 2, 2))
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not model.first._forward_hooks
    assert model.first.weight.grad is None
    assert torch.equal(torch.get_rng_state(), drawn)
