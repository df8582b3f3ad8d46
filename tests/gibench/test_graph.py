"""The graph of a network's calls says what each value is where it is used, also where one was written over."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gibench.graph import trace


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
