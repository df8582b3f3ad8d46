"""SPEAR++ as the harness calls it: on real gradients and on those that cannot be attacked."""

import json
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import batches, seeds
from gibench.attacks.spearpp import SpearPP
from gibench.attacks.spearpp.rounds import PARTS
from gibench.datasets.base import Split
from gibench.errors import AttackError
from gibench.models.convnet import ConvNet
from gibench.models.linear import Linear
from gibench.models.mlp import MLP
from gibench.observation import Update

KEYS = {
    "rank",
    "sigma",
    "singular_value_gap",
    "directions_found",
    "directions_pure",
    "sparsity_matching",
    "sparsity_matching_by_image",
    "predicted_error_by_image",
    "rounds",
    "starts",
    "seconds",
}


def attacked(seen, context, seed=0, **settings):
    """What sparse columns alone give: with the next layer's gradient most batches need no search for them."""
    run = SpearPP(**{"without": "next-layer"} | settings)(seen.observation, context(seed))
    assert run.status == "ok"
    return run.reconstruction


def claims(seen, result):
    """How many images are exact, certified, and falsely certified."""
    exact = seen.exact(result.images)
    return int(exact.sum()), int(result.certified.sum()), int((result.certified & ~exact).sum())


def changed(seen, change):
    """The same with other gradients: `change` of name and tensor."""
    tensors = {name: change(name, tensor) for name, tensor in seen.observation.update.tensors.items()}
    return replace(seen, observation=replace(seen.observation, update=Update(tensors)))


def built(photos, seed=0, width=200):
    with seeds.isolated(seed, "model"):
        return MLP(width=width, depth=5).build(photos.image_shape, photos.num_classes)


def test_a_batch_of_twenty_comes_back_whole_in_pixels(see, context):
    seen = see(20)
    result = attacked(seen, context)
    assert claims(seen, result) == (20, 20, 0)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert result.images.dtype == torch.float32


def test_the_diagnostics_say_what_was_found_and_are_json(see, context):
    diagnostics = attacked(see(8), context).diagnostics
    assert set(diagnostics) >= KEYS
    assert json.loads(json.dumps(diagnostics, allow_nan=False)) == diagnostics
    assert diagnostics["rank"] == diagnostics["directions_found"] == diagnostics["directions_pure"] == 8
    assert diagnostics["sparsity_matching"] == 1
    assert diagnostics["sparsity_matching_by_image"] == [1.0] * 8
    assert diagnostics["starts"] >= 16
    assert all(seconds >= 0 for seconds in diagnostics["seconds"].values())


@pytest.mark.parametrize("noise", [0.0, 2e-6])
def test_the_same_seed_gives_the_same_bits(see, context, noise):
    one, other = (attacked(see(10, noise=noise), context) for _ in range(2))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.certified, other.certified)


def test_the_batch_size_is_not_needed(see, context):
    granted, withheld = see(10), see(10, knows="nothing")
    assert (granted.observation.batch_size, withheld.observation.batch_size) == (10, None)
    assert torch.equal(attacked(granted, context).images, attacked(withheld, context).images)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_small_batches_are_exact(see, context, batch_size):
    seen = see(batch_size)
    assert claims(seen, attacked(seen, context)) == (batch_size, batch_size, 0)


def test_certified_images_come_first(see, context):
    certified = attacked(see(20, noise=1e-5), context, rounds=4).certified
    assert torch.equal(certified, certified.sort(descending=True).values)


def test_a_float64_model_is_attacked_too(see, context, photos):
    seen = see(10, model=built(photos).double())
    assert claims(seen, attacked(seen, context)) == (10, 10, 0)


def test_a_repeated_image_lowers_the_rank_and_the_rest_is_recovered(see, context, photos):
    drawn = batches.draw(photos, 12, "iid", 1, seeds.generator(0, "data"))
    order = [0, 0, *range(1, 12)]
    seen = see(truth=Split(drawn.images[order], drawn.labels[order]))
    result = attacked(seen, context)
    assert result.diagnostics["rank"] == 12
    assert len(result.images) == 12
    assert claims(seen, result) == (12, 0, 0)  # each might be the mean of two
    assert "the rank is 12 and the batch 13" in result.diagnostics["withheld"]


def test_duplicated_neurons_do_no_harm(see, context, photos):
    model = built(photos)
    with torch.no_grad():
        model[1].weight[:20], model[1].bias[:20] = model[1].weight[20:40].clone(), model[1].bias[20:40].clone()
    seen = see(20, model=model)
    assert claims(seen, attacked(seen, context)) == (20, 20, 0)


@pytest.mark.parametrize(("batch_size", "dead"), [(4, 200), (20, 200)])
def test_neurons_that_never_fire_do_no_harm(see, context, photos, batch_size, dead):
    model = built(photos, width=400)
    with torch.no_grad():
        model[1].bias[:dead] = -50
    seen = see(batch_size, model=model)
    assert claims(seen, attacked(seen, context)) == (batch_size, batch_size, 0)


def test_a_gradient_of_rank_above_the_batch_gives_no_false_certificate(see, context):
    generator = torch.Generator().manual_seed(0)

    def with_another_rank(name, tensor):
        if name != "1.weight":
            return tensor
        rows, columns = (torch.randn(size, generator=generator) for size in tensor.shape)
        return tensor + 1e-5 * torch.outer(rows, columns)

    seen = changed(see(10), with_another_rank)
    result = attacked(seen, context, rounds=3)
    assert result.diagnostics["rank"] == 11
    assert claims(seen, result)[2] == 0


def half_pruned(gradient, other):
    return torch.where(gradient.abs() >= gradient.abs().median(), gradient, 0.0)


def of_another_batch(gradient, other):
    return other


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("tamper", [half_pruned, of_another_batch])
def test_a_bias_gradient_that_is_not_of_these_images_certifies_nothing(see, context, seed, tamper):
    other = see(10, seed + 100).observation.gradient()["1.bias"]
    seen = changed(see(10, seed), lambda name, tensor: tamper(tensor, other) if name == "1.bias" else tensor)
    assert claims(seen, attacked(seen, context, rounds=3))[1:] == (0, 0)


def test_few_neurons_for_the_batch_give_no_false_certificate(see, context):
    seen = see(20, width=50)
    result = attacked(seen, context, rounds=3)
    assert len(result.images) == 20
    assert claims(seen, result)[2] == 0


def test_a_gradient_of_noise_alone_gives_no_image(see, context):
    generator = torch.Generator().manual_seed(0)
    seen = changed(see(10), lambda _, tensor: torch.randn(tensor.shape, generator=generator))
    result = attacked(seen, context)
    assert result.images.shape == (0, 3, 32, 32)
    assert "no rank gap" in result.diagnostics["finding"]
    json.dumps(result.diagnostics, allow_nan=False)


def test_a_zero_gradient_gives_no_image(see, context):
    result = attacked(changed(see(10), lambda _, tensor: torch.zeros_like(tensor)), context)
    assert len(result.images) == 0


def test_noise_that_hides_everything_gives_no_certificate(see, context):
    seen = see(20, noise=1.0)
    result = attacked(seen, context, rounds=2)
    assert result.certified is None or not result.certified.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_an_error(see, context, value):
    seen = changed(see(4), lambda name, tensor: tensor * value if name == "1.weight" else tensor)
    with pytest.raises(AttackError, match=r"NaN or infinity at '1\.weight'"):
        SpearPP()(seen.observation, context())


def test_a_deadline_that_has_passed_returns_what_there_is(see, context):
    seen = see(20)
    run = SpearPP()(seen.observation, context(deadline=time.monotonic()))
    assert run.status == "timeout"
    assert run.reconstruction.diagnostics["rounds"] == 1
    assert len(run.reconstruction.images) == 20
    assert claims(seen, run.reconstruction)[2] == 0


def test_progress_is_told(see, context):
    told = []
    SpearPP()(see(8).observation, context(progress=lambda message, share: told.append((message, share))))
    assert told
    assert all(share is None or 0 <= share <= 1 for _, share in told)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda photos: ConvNet().build(photos.image_shape, 10), "begins with Conv2d"),
        (lambda photos: Linear().build(photos.image_shape, 10), "needs a ReLU right after"),
        (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(3072, 9, bias=False), nn.ReLU(), nn.Linear(9, 10)), "a bias"),
        (
            lambda _: nn.Sequential(nn.Flatten(), nn.Linear(3072, 9), nn.Sigmoid(), nn.Linear(9, 10)),
            "Sigmoid has none",
        ),
    ],
)
def test_a_model_that_it_cannot_attack_is_skipped_with_the_reason(see, context, photos, model, reason):
    run = SpearPP()(see(4, model=model(photos)).observation, context())
    assert run.status == "skipped"
    assert reason in run.reason


def test_a_batch_above_the_rank_limit_is_skipped_with_the_limit(see, context):
    run = SpearPP()(see(11, width=10).observation, context())
    assert run.status == "skipped"
    assert "a batch of 11 is more than the 10" in run.reason
    assert "use a wider layer" in run.reason


def test_a_batch_above_the_rank_limit_that_is_not_known_gives_no_image(see, context):
    assert len(attacked(see(11, width=10, knows="nothing"), context).images) == 0


@pytest.mark.parametrize("part", [part for part in PARTS if part != "next-layer"])
def test_each_part_can_be_left_out_and_nothing_false_is_certified(see, context, part):
    seen = see(12, 3, labels="same")
    result = SpearPP(without=part, rounds=4)(seen.observation, context(3)).reconstruction
    assert len(result.images) == 12
    assert not (result.certified & ~seen.exact(result.images)).any()
    if part in ("purity", "certificates"):
        assert not result.certified.any()


def test_a_repeated_image_is_said_and_the_others_are_recovered(see, context, photos):
    drawn = see(12).truth
    again = torch.tensor([*range(11), 4])  # the last one is the fifth again
    seen = see(12, truth=Split(drawn.images[again], drawn.labels[again]))
    result = attacked(seen, context)
    assert len(result.images) == 11
    assert not result.certified.any()
    assert seen.exact(result.images).all()
    assert "rank 11, less than the batch of 12" in result.diagnostics["finding"]


def test_what_is_missing_is_said(see, context):
    seen = see(20, 3, labels="same")
    result = SpearPP(rounds=1, without="next-layer/splitting")(seen.observation, context(3)).reconstruction
    missing = 20 - result.diagnostics["directions_found"]
    assert missing > 0
    assert f"{missing} of 20 directions are not found" in result.diagnostics["finding"]
    assert not result.certified.any()
