"""Updates as people have them, made by plain PyTorch, and what an audit must say of each."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import gibench
from tests.gibench.audit.conftest import MEAN, RATE, SHAPE, STD, network, pictures, trained

SMALL = (1, 16, 16)


def audit(sent, update, shape=SMALL, mean=MEAN, std=STD, **options):
    return gibench.audit(sent.model, update, shape, mean, std, **({"device": "cpu"} | options))


def small(**settings):
    return trained(pictures(4, SMALL), model=network(SMALL, 100), **settings)


def assert_recovered(report, images):
    """Every image once, to the last grey level."""
    found = (report.images * 255).round()
    distance = (found[:, None] - 255 * images[None]).abs().flatten(2).amax(2)
    assert sorted(distance.argmin(1).tolist()) == list(range(len(images)))
    assert float(distance.amin(1).max()) < 0.5


def test_every_format_and_kind_is_certified_and_bit_equal(plain, tmp_path):
    torch.save(plain.delta, tmp_path / "a.pt")
    save_file(plain.after, tmp_path / "a.safetensors")
    torch.save(plain.model.state_dict(), tmp_path / "received.pt")
    flower = [tensor.numpy() for tensor in plain.delta.values()]
    np.savez(tmp_path / "a.npz", *flower)
    of_delta = [audit(plain, update, SHAPE, kind="delta") for update in (tmp_path / "a.pt", tmp_path / "a.npz", flower)]
    of_weights = audit(plain, tmp_path / "a.safetensors", SHAPE, weights=tmp_path / "received.pt")
    assert of_weights.kind == "weights"
    for report in (*of_delta, of_weights):
        assert (report.verdict, report.certified_pixels, report.exit_code()) == ("LEAKS", 8, 3)
        assert_recovered(report, plain.images)
        assert report.residual < 1e-4
        assert report.cause is None
    assert all(torch.equal(report.images, of_delta[0].images) for report in of_delta)


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_auto_tells_a_gradient_from_a_delta(plain, kind):
    report = audit(plain, getattr(plain, kind), SHAPE)
    assert (report.kind, report.certified_pixels) == (kind, 8)
    assert report.assumed[-1] == f"the update is a {kind}, as the sign of what the loss sends back says"


def test_label_smoothing_is_read_off():
    sent = small(smoothing=0.1)
    report = audit(sent, sent.delta, kind="delta", training={"lr": RATE})
    assert report.certified_pixels == 4
    assert report.smoothing == pytest.approx(0.1, abs=1e-3)
    assert sorted(report.labels.tolist()) == [0, 1, 2, 3]
    told = report.targets.gather(1, report.labels[:, None])
    torch.testing.assert_close(told, torch.full_like(told, 0.91), atol=1e-3, rtol=0)


def test_weight_decay_that_was_not_told_is_named_and_nothing_is_certified():
    sent = small(weight_decay=1e-2)
    untold = audit(sent, sent.delta, kind="delta", training={"lr": RATE})
    assert (untold.verdict, untold.certified_inputs, untold.exit_code()) == ("SUSPECT", 0, 4)
    assert "as weight decay leaves it: tell weight_decay 0.01" in untold.cause
    told = audit(sent, sent.delta, training={"lr": RATE, "weight_decay": 1e-2})
    assert (told.kind, told.certified_pixels, told.cause) == ("delta", 4, None)


@pytest.mark.parametrize(
    ("shape", "settings", "training"),
    [
        ((3, 16, 16), {"momentum": 0.9, "weight_decay": 1e-4}, {"momentum": 0.9, "weight_decay": 1e-4}),
        (SMALL, {"reduction": "sum"}, {"reduction": "sum"}),
        (SMALL, {"reduction": "sum"}, {"reduction": "sum", "batch_size": 4}),
    ],
)
def test_what_is_told_of_a_client_is_allowed_for(shape, settings, training):
    sent = trained(pictures(4, shape), model=network(shape, 100), **settings)
    report = audit(sent, sent.delta, shape, kind="delta", training={"lr": RATE, **training})
    assert (report.certified_pixels, report.cause) == (4, None)
    assert_recovered(report, sent.images)
    aimed = torch.eye(10, dtype=torch.float64)[report.labels]
    torch.testing.assert_close(report.targets, aimed, atol=2e-3, rtol=0)


def test_a_gradient_holds_no_weight_decay_even_if_it_is_told():
    sent = small(weight_decay=1e-2)
    report = audit(sent, sent.gradient, training={"lr": RATE, "weight_decay": 1e-2})
    assert (report.kind, report.certified_pixels) == ("gradient", 4)


@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, 1.1 * STD), (MEAN + 1e-3, STD), (0, 1)], ids=["std-off", "mean-off", "forgotten"]
)
def test_wrong_normalisation_certifies_inputs_and_proposes_what_is_right(plain, mean, std):
    report = audit(plain, plain.gradient, SHAPE, mean, std)
    assert (report.verdict, report.certified_inputs, report.certified_pixels) == ("LEAKS", 8, 0)
    assert report.pixels.mean == pytest.approx((MEAN,), abs=1e-4)
    assert report.pixels.std == pytest.approx((STD,), abs=1e-4)


def test_pixels_from_0_to_255_are_none_of_0_to_1():
    images = pictures(4, SMALL)
    sent = trained(images, inputs=255 * images, model=network(SMALL, 100))
    report = audit(sent, sent.gradient, mean=0, std=1)
    assert report.certified_inputs
    assert not report.certified_pixels
    assert report.pixels.std == pytest.approx((1 / 255,), rel=1e-3)


def test_weights_of_after_the_round_certify_nothing_and_are_asked_about():
    sent = small()
    report = audit(sent, sent.gradient, weights=sent.after, kind="gradient", attacks=["layer-pair:patience=2"])
    assert report.certified_inputs == 0
    assert report.verdict != "LEAKS"
    assert report.residual > 0.5
    assert report.cause.startswith("are these the weights the client received")


def test_one_step_of_adam_is_refused_at_once():
    sent = small(optimizer=torch.optim.Adam)
    report = audit(sent, sent.delta)
    assert (report.verdict, report.exit_code(), report.attempts) == ("REFUSED", 2, ())
    assert report.reason.startswith("signs only")
    told = audit(sent, sent.gradient, training={"optimizer": "adam"})
    assert told.verdict == "REFUSED"


@pytest.mark.parametrize(("dtype", "cause"), [(torch.float16, "rounded to float16"), (torch.bfloat16, "bfloat16")])
def test_half_precision_is_named(dtype, cause):
    sent = small()
    report = audit(sent, {name: tensor.to(dtype) for name, tensor in sent.gradient.items()})
    assert report.verdict in ("LEAKS", "SUSPECT")
    assert_recovered(report, sent.images)
    assert cause in report.cause


def in_first(images, sent):
    """How many of the images, one a true one, are of the first step of 3 of all images sent."""
    distance = (images[:, None] - sent.images[None]).abs().flatten(2).amax(2)
    assert float(distance.amin(1).max()) < 0.5 / 255
    return len(set(distance.argmin(1).tolist()) & set(range(3)))


def stepped(**settings):
    return trained(pictures(9, SMALL), model=network(SMALL, 100), steps=3, **settings)


def test_the_first_of_several_steps_is_certified_and_the_others_are_not():
    sent, attacks = stepped(momentum=0.9), ["layer-pair:patience=2"]
    told = {"lr": RATE, "momentum": 0.9, "local_steps": 3, "batch_size": 9}
    report = audit(sent, sent.delta, kind="delta", training=told, attacks=attacks)
    assert (report.verdict, report.certified_pixels, len(report.images)) == ("LEAKS", 3, 9)
    assert in_first(report.images[report.certified], sent) == 3
    assert "3 local steps" in report.cause


@pytest.mark.parametrize(
    "told",
    [
        {"lr": RATE},
        {"lr": RATE, "local_steps": 3},
        {"lr": RATE, "local_steps": 2, "batch_size": 9},
        {"lr": RATE, "local_steps": 3, "batch_size": 12},
        {"lr": RATE, "local_steps": 3, "local_epochs": 3, "batch_size": 9},
        {"lr": RATE, "local_steps": 3, "clients": 3, "batch_size": 9},
    ],
)
def test_the_first_of_several_steps_is_suspect_where_its_size_is_not_told_or_wrong(told):
    sent = stepped()
    report = audit(sent, sent.delta, kind="delta", training=told, attacks=["layer-pair:patience=2"])
    assert (report.verdict, report.certified_inputs) == ("SUSPECT", 0)
    assert in_first(report.images[report.on_grid], sent) == 3


def test_weight_decay_of_several_steps_is_taken_off_exactly():
    sent = stepped(momentum=0.5, weight_decay=0.05)
    told = {"lr": RATE, "momentum": 0.5, "weight_decay": 0.05, "local_steps": 3, "batch_size": 9}
    report = audit(sent, sent.delta, kind="delta", training=told, attacks=["layer-pair:patience=2"])
    assert (report.rank, report.certified_pixels) == (9, 3)


@pytest.mark.slow
def test_dropout_is_named_and_what_lies_on_the_grid_is_suspect():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(256, 100), nn.ReLU(), nn.Dropout(0.5), nn.Linear(100, 100), nn.ReLU()
    sent = trained(pictures(8, SMALL, 3), model=nn.Sequential(*layers, nn.Linear(100, 10)))
    report = audit(sent, sent.gradient, kind="gradient", attacks=["spearpp:rounds=2", "analytic"])
    assert (report.verdict, report.certified_inputs) == ("SUSPECT", 0)
    shown = report.images[report.on_grid]
    assert len(shown)
    assert all(float((image - sent.images).abs().amax((1, 2, 3)).min()) < 0.5 / 255 for image in shown)
    assert "dropped out at random" in report.cause


def test_a_convolutional_network_says_why_attacks_do_not_apply():
    torch.manual_seed(0)
    trunk = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten()
    sent = trained(pictures(2, (1, 8, 8)), model=nn.Sequential(*trunk, nn.Linear(256, 10)))
    attacks = ["analytic", "layer-pair", "spearpp", "invertinggradients:max_iterations=5,restarts=1"]
    report = audit(sent, sent.gradient, (1, 8, 8), kind="gradient", training={"batch_size": 2}, attacks=attacks)
    assert [each.status for each in report.attempts] == ["skipped"] * 3 + ["ok"]
    assert all(each.reason for each in report.attempts[:3])
    assert (report.verdict, report.exit_code()) == ("NOT SHOWN", 0)
    assert len(report.images) == 2


@pytest.mark.parametrize("kind", ["gradient", "auto"])
def test_noise_shows_nothing(kind):
    sent = small()
    generator = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in sent.gradient.items()}
    report = audit(sent, noise, kind=kind)
    assert (report.verdict, report.certified_inputs, report.exit_code()) == ("NOT SHOWN", 0, 0)


def test_the_user_s_own_model_stays_as_it_is():
    sent = small()
    model = sent.model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    audit(sent, sent.gradient, weights=sent.after, attacks=["analytic"])
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_spent_budget_is_said():
    sent = small()
    report = audit(sent, sent.gradient, kind="gradient", budget=1e-9)
    assert {each.status for each in report.attempts} == {"not tried"}
    assert all("raise it" in each.reason for each in report.attempts if not each.control)
    assert report.verdict == "NOT SHOWN"
