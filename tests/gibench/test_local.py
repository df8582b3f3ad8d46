"""Local training: the steps of SGD, and derivatives through them."""

import pytest
import torch
from torch.nn import functional

from gibench.buffers import mean_gradient
from gibench.defense import Batch
from gibench.local import local_sgd, total_lr
from gibench.registry import create


def build(spec="mlp:width=6,depth=1"):
    torch.manual_seed(0)
    return create("model", spec).build((1, 3, 3), 4).double()


def batches_of(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randn(size, 1, 3, 3, generator=generator, dtype=torch.float64),
            torch.randint(4, (size,), generator=generator),
        )
        for size in sizes
    ]


def trained(model, batches, **settings):
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    gradient = mean_gradient(model)
    return local_sgd(lambda at, batch: gradient(at, batch.inputs, batch.labels), parameters, batches, **settings)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_steps_are_those_of_torch(momentum):
    model, batches = build(), batches_of((3, 2, 4))
    found = trained(model, batches, lr=0.3, momentum=momentum)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=momentum)
    for batch in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    torch.testing.assert_close(found, dict(model.named_parameters()), rtol=1e-12, atol=1e-14)


def test_derivatives_through_the_steps_agree_with_finite_differences():
    model, labels = build("lenet:init=default"), batches_of((2,))[0].labels  # smooth
    weight = torch.Generator().manual_seed(1)

    def delta(inputs):
        found = trained(model, [Batch(inputs, labels)] * 3, lr=0.5, momentum=0.5)
        weight.manual_seed(1)
        return sum(
            (torch.randn(value.shape, generator=weight, dtype=value.dtype) * value).sum() for value in found.values()
        )

    inputs = batches_of((2,))[0].inputs.requires_grad_()
    assert torch.autograd.gradcheck(delta, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(("lr", "momentum", "steps"), [(0.1, 0.0, 7), (0.01, 0.9, 5), (1.0, 0.5, 1)])
def test_the_total_learning_rate_is_the_weight_of_a_constant_gradient(lr, momentum, steps):
    start = {"weight": torch.zeros(1, dtype=torch.float64)}
    end = local_sgd(
        lambda at, batch: {"weight": torch.ones(1, dtype=torch.float64)}, start, [None] * steps, lr, momentum
    )
    assert total_lr(lr, momentum, steps) == pytest.approx(-float(end["weight"]), rel=1e-12)


def test_the_start_is_left_as_it_is():
    model = build()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trained(model, batches_of((3, 3)), lr=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
