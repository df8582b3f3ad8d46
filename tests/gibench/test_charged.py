"""Whose failure it is: what ends before an attack begins says why in one line and is scored against none (rule E9)."""

import numpy as np
import pytest
from PIL import Image

from gibench.result import COLUMNS

SCORES = (
    "n_reconstructed", "exact_rate", "certified_rate", "false_certificates", "psnr_mean", "psnr_median", "psnr_q25",
    "psnr_q75", "ssim_mean", "lpips_mean", "mse_mean", "recognisable_rate", "reidentified_rate", "label_accuracy",
    "labels_found", "runtime_s", "peak_memory_mb",
)  # fmt: skip
RESNET = {"dataset": "digits", "model": "resnet18"}  # digits of 8x8 reach its last layers as one pixel


def assert_without_score(result, status):
    assert set(SCORES) <= set(COLUMNS)
    assert result.row.status == status
    assert [name for name in SCORES if getattr(result.row, name) is not None] == []
    assert result.images is result.grid_png is None
    assert "\n" not in result.row.reason


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 1, "knows": "bn_statistics"},
        {"batch_size": 4, "defense": "fedavg:epochs=1,local_batch_size=1"},
        {"batch_size": 3, "defense": "fedavg:epochs=1,local_batch_size=2"},
        {"batch_size": 1, "defense": "fedavg:clients=2,epochs=1", "knows": "bn_statistics"},
    ],
)
def test_a_step_on_one_image_through_batchnorm_is_skipped_with_the_mend(options, run_one):
    result = run_one("random", **RESNET | options)
    assert_without_score(result, "skipped")
    assert "BatchNorm ('layer" in result.row.reason
    assert "let every step have 2 images or more" in result.row.reason
    assert "use a model without BatchNorm" in result.row.reason


@pytest.mark.parametrize(
    "options",
    [
        RESNET | {"batch_size": 2, "knows": "bn_statistics"},
        RESNET | {"batch_size": 4, "defense": "fedavg:epochs=1,local_batch_size=2"},
        {"dataset": "photos", "model": "resnet18", "batch_size": 1, "knows": "bn_statistics"},
    ],
)
def test_batchnorm_runs_where_it_has_two_values_a_channel(options, run_one):
    row = run_one("random", **options).row
    assert (row.status, row.reason) == ("ok", None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"defense": "raises"}, "computing the update, before any attack: ValueError: no luck today"),
        ({"model": "odd:what=build"}, "preparing the model, before any attack: LookupError: no weights"),
        ({"model": "odd:what=forward"}, "preparing the model, before any attack: IndexError: too deep"),
        (
            {"dataset": "digits", "model": "mlp:width=20,depth=2", "defense": "poison"},
            "the observed gradient holds NaN or infinity at '1.weight': only finite updates can be attacked",
        ),
    ],
)
def test_what_fails_before_the_attack_begins_is_charged_to_none(options, reason, run_one):
    result = run_one("random", **options)
    assert_without_score(result, "failed")
    assert result.row.reason == reason


def test_a_model_that_refuses_the_images_says_so_and_no_attack_is_charged(run_one, tmp_path):
    draw_images(tmp_path, classes=2, side=3)
    result = run_one("random", dataset=f"folder:path='{tmp_path}'", model="convnet", batch_size=2)
    assert_without_score(result, "failed")
    assert "convnet takes images from 4 px up, not 3x3: use mlp or linear" in result.row.reason


def test_an_attack_that_fails_once_it_has_begun_is_charged(run_one):
    row = run_one("supports-raises").row
    assert (row.status, row.reason) == ("failed", "KeyError: 'fc.weight'")
    assert (row.n_reconstructed, row.exact_rate) == (0, 0)
    assert row.mse_mean > 0


@pytest.mark.parametrize("defense", ["none", "dp", "fedavg"])
@pytest.mark.parametrize("classes", [1, 2])
def test_one_class_has_no_gradient_to_attack(classes, defense, run_one, tmp_path):
    draw_images(tmp_path, classes)
    result = run_one("mean-image", dataset=f"folder:path='{tmp_path}'", batch_size=2, defense=defense)
    if classes == 2:
        assert result.row.status == "ok"
        assert result.row.grad_norm > 0
        return
    assert_without_score(result, "skipped")
    assert result.row.grad_norm == 0
    assert result.row.reason == (
        "the undefended gradient is exactly zero, so nothing can leak from it: the network tells one class apart, so "
        "its loss is the same for every input: use a data set with two or more"
    )


def test_a_loss_that_no_parameter_changes_has_no_gradient_to_attack(run_one):
    result = run_one("random", dataset="shifting", model="odd:what=dead", batch_size=2)
    assert_without_score(result, "skipped")
    assert "exactly zero, so nothing can leak from it: the loss of this batch no longer" in result.row.reason


def draw_images(folder, classes, side=8):
    """Twelve images of noise, a folder a class."""
    for number, pixels in enumerate(np.random.RandomState(0).randint(0, 256, (12, side, side), dtype=np.uint8)):
        place = folder / f"class-{number % classes}"
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
