"""Training on the training split, and accuracy."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import seeds, training
from gibench.datasets.base import Split
from gibench.registry import create

STEPS = {"mlp": 60, "linear": 300, "lenet": 300, "convnet:width=8": 100}


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits").load()


def build(images, spec="linear"):
    with seeds.isolated(0, "model"):
        return create("model", spec).build(images.image_shape, images.num_classes)


def train(model, images, steps):
    training.train(model, images, steps, torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("spec", "steps"), [*STEPS.items(), pytest.param("resnet18", 25, marks=pytest.mark.slow)])
def test_a_trained_model_knows_images_it_was_not_trained_on(spec, steps, digits):
    model = build(digits, spec)
    before = training.accuracy(model, digits, digits.tuning)
    after = training.accuracy(train(model, digits, steps), digits, digits.tuning)
    assert before < 0.3
    assert after > 0.6


def test_no_step_changes_nothing(digits):
    model = build(digits)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, digits, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_follows_its_generator(digits):
    one, same = (train(build(digits), digits, 5) for _ in range(2))
    other = build(digits)
    training.train(other, digits, 5, torch.Generator().manual_seed(1))
    assert torch.equal(one[1].weight, same[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)


def test_training_sees_training_images_alone(digits):
    unseen = Split(torch.full_like(digits.private.images, float("nan")), digits.private.labels)
    spoiled = replace(digits, private=unseen, tuning=unseen, public=unseen)
    model = train(build(digits), spoiled, 5)
    assert torch.equal(model[1].weight, train(build(digits), digits, 5)[1].weight)


def test_training_leaves_no_gradient_behind(digits):
    assert all(parameter.grad is None for parameter in train(build(digits), digits, 1).parameters())


def test_a_batch_may_be_larger_than_the_training_split(digits):
    few = Split(digits.training.images[:3], digits.training.labels[:3])
    small = replace(digits, training=few)
    assert training.accuracy(train(build(small), small, 200), small, few) == 1


def test_accuracy_is_the_share_of_right_answers_in_eval_mode(digits):
    class Answers(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, inputs):
            right = torch.arange(10) == (3 if not self.training else 4)
            return self.bias + right.float().expand(len(inputs), 10)

    model = Answers().train()
    share = float((digits.public.labels == 3).float().mean())
    assert training.accuracy(model, digits, digits.public) == pytest.approx(share)
    assert model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_is_given_images_normalised_in_its_own_dtype(digits, dtype):
    model = build(digits).to(dtype)
    inputs = training.model_inputs(model, digits, digits.private.images)
    expected = (digits.private.images.to(dtype) - digits.mean.to(dtype)) / digits.std.to(dtype)
    assert inputs.dtype == dtype
    torch.testing.assert_close(inputs, expected, atol=0, rtol=0)
