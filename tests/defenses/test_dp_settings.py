"""DP-SGD: which settings, data and models it takes."""

import pytest
import torch
from torch import nn

from gibench.defense import DefenseContext
from gibench.errors import UsageError
from gibench.registry import create, resolve


def test_client_level_dp_takes_batchnorm():
    context = DefenseContext(torch.Generator(), 4, 100)
    assert create("defense", "dp:on=update").supports(nn.Sequential(nn.BatchNorm2d(4)), context) is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("dp:delta=0.01", "delta=0.01, which is not below 1/100, one over the number of images"),
        ("dp:delta=0.5", "delta=0.5"),
        ("dp:on=update,delta=0.04", "delta=0.04, which is not below 1/25, one over the number of clients"),
    ],
)
def test_a_delta_that_promises_nothing_is_refused(spec, reason):
    context = DefenseContext(torch.Generator(), 4, 100)
    with pytest.raises(UsageError, match=reason):
        create("defense", spec).check(context)
    create("defense", "dp:delta=0.0099").check(context)
    create("defense", "dp:delta=0.5,noise_multiplier=0").check(context)


def test_a_target_epsilon_stands_in_the_place_of_the_noise_multiplier():
    spec = resolve("defense", "dp:target_epsilon=8")
    assert {"noise_multiplier": "none", "target_epsilon": "8.0"}.items() <= dict(spec.settings).items()
    assert resolve("defense", spec) == spec
    assert dict(resolve("defense", "dp").settings)["noise_multiplier"] == "1.0"
    for both in ("noise_multiplier=1,target_epsilon=8", "noise_multiplier=none"):
        with pytest.raises(UsageError, match="defense 'dp': give noise_multiplier or target_epsilon, one of the two"):
            create("defense", f"dp:{both}")


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.SyncBatchNorm(4)])
def test_batchnorm_is_refused_with_the_reason(layer):
    context = DefenseContext(torch.Generator(), 4, 100)
    reason = create("defense", "dp").supports(nn.Sequential(nn.Identity(), layer), context)
    assert reason.startswith("dp bounds each example's gradient, and BatchNorm mixes the examples of a batch")
    assert reason.endswith("use a model without BatchNorm, or eval mode, where running statistics stand still")


def test_batchnorm_that_normalises_by_no_batch_is_supported():
    context, dp = DefenseContext(torch.Generator(), 4, 100), create("defense", "dp")
    assert dp.supports(nn.Sequential(nn.BatchNorm2d(4)).eval(), context) is None
    assert dp.supports(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)).eval(), context) is not None


@pytest.mark.parametrize("spec", ["mlp:width=30,depth=2", "linear", "lenet", "convnet:width=4"])
def test_models_without_batchnorm_are_supported(spec):
    model = create("model", spec).build((3, 8, 8), 5)
    assert create("defense", "dp").supports(model, DefenseContext(torch.Generator(), 4, 100)) is None


@pytest.mark.parametrize(
    "setting",
    [
        "noise_multiplier=-1",
        "noise_multiplier=1e-12",
        "noise_multiplier=1e7",
        "noise_multiplier=inf",
        "max_grad_norm=0",
        "max_grad_norm=nan",
        "delta=0",
        "delta=1",
        "run_steps=0",
        "run_steps=1000000",
        "target_epsilon=0",
        "target_epsilon=-1",
        "clipping=layer",
        "on=client",
        "sampling=none",
    ],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UsageError, match=f"defense 'dp': {setting.partition('=')[0]}=.* is refused: "):
        create("defense", f"dp:{setting}")
