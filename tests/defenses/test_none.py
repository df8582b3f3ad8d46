"""No defense is a defense like any other."""

import torch

from gibench.buffers import mean_gradient
from gibench.chain import run
from gibench.defense import Batch, DefenseContext, Guarantee
from gibench.registry import create

CONTEXT = DefenseContext(torch.Generator(), 4, 100)


def test_the_mean_gradient_is_released_to_the_last_bit():
    model = create("model", "mlp:width=5,depth=1").build((1, 2, 2), 3)
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    batch = Batch(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0]))
    gradient = mean_gradient(model)
    update, training = run([create("defense", "none")], gradient, parameters, [batch], CONTEXT)
    expected = gradient(parameters, batch.inputs, batch.labels)
    assert update.kind == "gradient"
    assert all(torch.equal(update.tensors[name], expected[name]) for name in parameters)
    assert training is None


def test_nothing_is_promised_and_everything_is_supported():
    none = create("defense", "none")
    assert none.guarantee(CONTEXT) == Guarantee()
    assert none.supports(torch.nn.BatchNorm1d(3), CONTEXT) is None
    assert none.settings() == {}
