"""The closed form for one image, against real gradients and planted ones."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench.attacks.transformers.april import April, solve_patches

SPEC = "vit-tiny:patch=8,depth=2"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", [SPEC, "vit-tiny:depth=2"])
def test_one_image_comes_back_with_its_label(send, context, exact, model, seed):
    observation, truth = send(seed=seed, model=model, knows="nothing")
    run = April()(observation, context())
    assert run.status == "ok"
    found = run.reconstruction
    assert torch.equal(found.labels, truth.labels)
    assert float((found.images - truth.images).abs().max()) < 6 * found.diagnostics["predicted_error"]
    if model == SPEC:  # where the patches are more, single precision leaves some images short of the last grey level
        assert exact(truth, found.images) == 1
        assert bool(found.certified.all())


@pytest.mark.parametrize("linear", [False, True])
def test_any_transformer_with_learned_positions_will_do(send, context, exact, tokens, linear):
    observation, truth = send(mend=lambda _: tokens(linear=linear))
    assert exact(truth, April()(observation, context()).reconstruction.images) == 1


@pytest.mark.parametrize("defense", ["fedavg:epochs=3,lr=0.1", "clip:max_norm=0.1"])
def test_local_steps_on_one_image_and_a_common_scale_hide_nothing(send, context, exact, defense):
    observation, truth = send(model=SPEC, defense=defense)
    assert exact(truth, April()(observation, context()).reconstruction.images) == 1


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_no_certificate_where_the_client_scales_the_embedding_otherwise(send, context, exact, factor):
    observation, truth = send(model=SPEC)
    tensors = dict(observation.update.tensors)
    tensors["embed.weight"] = factor * tensors["embed.weight"]
    found = April()(replace(observation, update=replace(observation.update, tensors=tensors)), context()).reconstruction
    assert found.diagnostics["predicted_error"] < 1e-3
    assert exact(truth, found.images) == 0
    assert not bool(found.certified.any())


@pytest.mark.parametrize("defense", ["dp:noise_multiplier=1e-6", "dp", "pruning", "quantize"])
def test_what_noise_hides_is_not_certified(send, context, defense):
    found = April()(send(model=SPEC, defense=defense)[0], context()).reconstruction
    assert not bool(found.certified.any())
    assert "not of one image, or noise hides it" in found.diagnostics["finding"]


def test_a_batch_is_refused_where_its_size_is_known_and_never_certified(send, context):
    observation, _ = send(2, model=SPEC)
    assert "closed form for one image" in April()(observation, context()).reason
    found = April()(replace(observation, batch_size=None), context()).reconstruction
    assert not bool(found.certified.any())
    assert "not of one image" in found.diagnostics["finding"]


def test_nothing_is_found_where_nothing_is_sent_back(send, context):
    def emptied(network):
        nn.init.zeros_(network.head.weight)
        return network

    found = April()(send(model=SPEC, mend=emptied)[0], context()).reconstruction
    assert (len(found.images), found.diagnostics["finding"]) == (0, "nothing is sent back to the positions")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("mlp", "a layer that embeds the image's patches"),
        ("convnet", "a layer that embeds the image's patches"),
        ("vit-tiny:patch=2,depth=1", "as many numbers as there are patches, 256, and they have 192"),
    ],
)
def test_where_it_cannot_apply_it_says_why(send, context, model, reason):
    run = April()(send(model=model)[0], context())
    assert run.status == "skipped"
    assert reason in run.reason


def test_fixed_positions_are_named(send, context, tokens):
    assert "needs learned positions" in April()(send(mend=lambda _: tokens(fixed=True))[0], context()).reason


@pytest.mark.parametrize("name", ["embed.weight", "positions"])
def test_what_the_update_lacks_is_named(send, context, name):
    observation, _ = send(model=SPEC)
    tensors = {key: each for key, each in observation.update.tensors.items() if key != name}
    run = April()(replace(observation, update=replace(observation.update, tensors=tensors)), context())
    assert (run.status, f"the update has no '{name}'" in run.reason) == ("skipped", True)


@pytest.mark.parametrize("noise", [1e-6, 1e-3])
def test_the_predicted_error_is_that_of_the_worst_patch(noise):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    back, patches = normal(20, 60), normal(20, 400)
    found, error, unexplained = solve_patches(back, back.T @ patches + noise * normal(60, 400))
    measured = (found - patches).square().mean(1).sqrt().max()
    assert float(measured) == pytest.approx(error, rel=0.15)
    assert unexplained == pytest.approx(noise * (40 * 400) ** 0.5 / float((back.T @ patches).norm()), rel=0.05)
