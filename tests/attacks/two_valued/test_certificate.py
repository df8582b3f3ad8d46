"""Which images of a two-valued batch are certified."""

from dataclasses import replace

import pytest
import torch

from gibench.attacks.exact.assemble import assemble
from gibench.attacks.exact.refine import Directions, zero_rows
from gibench.attacks.two_valued import certificate
from gibench.attacks.two_valued.certificate import certify_two_valued, reproduces_column
from gibench.attacks.two_valued.signals import determined, fit_signals, two_valued
from gibench.datasets.base import Split

PIXELS = torch.tensor([0.25], dtype=torch.float64)


def made(case, directions, bias=None):
    bias = case.gradient.bias if bias is None else bias
    return assemble(replace(case.gradient, bias=bias), directions)


def test_true_images_reproduce_their_columns_and_others_do_not(shallow):
    case = shallow(20, 200)
    batch = made(case, case.truth())
    layer, labels = case.gradient.layer, case.labels
    assert reproduces_column(case.factors, case.backward, layer, batch, labels).all()
    assert not reproduces_column(case.factors, case.backward, layer, batch, (labels + 1) % 10).any()
    brighter = replace(batch, inputs=4 * batch.inputs)  # whose probabilities are others
    assert not reproduces_column(case.factors, case.backward, layer, brighter, labels).any()


def test_a_mixture_among_the_directions_certifies_no_image_it_holds(shallow):
    case = shallow(20, 200, labels="same")
    arguments = case.gradient.layer, case.backward
    truth = case.truth()
    batch = made(case, truth)
    passed = torch.ones(20, dtype=torch.bool)
    assert certify_two_valued(case.factors, batch, passed, PIXELS, *arguments).all()
    vectors = truth.vectors.clone()
    vectors[:, 3] = vectors[:, 3] - 0.7 * vectors[:, 5]
    vectors[:, 3] /= vectors[:, 3].norm()
    zeros = zero_rows(case.factors, vectors)
    batch = made(case, Directions(vectors, torch.where(torch.arange(20) == 3, zeros, truth.zeros)))
    certified = certify_two_valued(case.factors, batch, passed, PIXELS, *arguments)
    assert not certified[[3, 5]].any()


@pytest.mark.parametrize("seed", range(3))
def test_on_the_line_through_two_images_of_one_pattern_a_kink_determines_nothing(see, shallow, monkeypatch, seed):
    drawn = see(8, seed).truth
    images, labels = drawn.images.clone(), drawn.labels.clone()
    generator = torch.Generator().manual_seed(seed)
    images[1] = (images[0] + 3e-4 * torch.randn(images[0].shape, generator=generator)).clamp(0, 1)
    labels[1] = (labels[0] + 1) % 10
    case = shallow(seed=seed, width=100, truth=Split(images, labels))
    factors, backward = case.factors, case.backward
    assert torch.equal(case.active[:, 0], case.active[:, 1])
    signals = backward.weight.T @ case.residuals
    vectors, zeros, left_open = case.truth().vectors.clone(), ~case.active, torch.zeros_like(case.active)
    for place, neuron in enumerate(case.active[:, 0].nonzero()[:2, 0].tolist()):  # two points of the line
        column = signals[:, 0] - signals[neuron, 0] / signals[neuron, 1] * signals[:, 1]  # zero at this neuron
        planted = factors.basis.T @ (case.active[:, 0] * column)
        vectors[:, place] = planted / planted.norm()
        zeros[neuron, place] = True  # as the pattern beyond the kink has it, under which no other signal fits
        left_open[neuron, place] = True
    passed = two_valued(factors, backward, fit_signals(factors, backward, ~zeros))
    assert passed.all()
    sides = determined(factors, backward, ~zeros, ~left_open)
    assert sides[2:].min() > 1e4 * sides[:2].max()
    monkeypatch.setattr(certificate, "reproduces_column", lambda *_: passed)
    sure = torch.ones_like(zeros)
    batch = assemble(case.gradient, Directions(vectors, zeros))
    batch = replace(batch, error=0 * batch.error, scale_error=0 * batch.error, votes=sure, agree=sure)
    arguments = passed, PIXELS, case.gradient.layer, backward
    assert certify_two_valued(factors, batch, *arguments).all()
    batch = replace(batch, votes=~left_open, agree=~left_open)
    certified = certify_two_valued(factors, batch, *arguments)
    assert not certified[:2].any()
    assert certified[2:].any()
