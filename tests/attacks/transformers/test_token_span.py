"""Whole batches from the first block of a vision transformer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench.attacks.transformers.block import find_block
from gibench.attacks.transformers.patches import find_patch_embedding
from gibench.attacks.transformers.token_span import TokenSpan
from gibench.registry import create

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(("batch_size", "seed"), [(1, 0), (2, 0), (3, 1)])
@pytest.mark.parametrize("knows", ["batch_size", "nothing"])
def test_whole_batches_come_back(send, context, exact, batch_size, seed, knows):
    observation, truth = send(batch_size, seed, knows=knows)
    run = TokenSpan()(observation, context())
    assert run.status == "ok"
    assert exact(truth, run.reconstruction.images) == batch_size
    assert run.reconstruction.certified is None
    assert run.reconstruction.diagnostics["patches_by_image"] == [4] * batch_size


def trained(network):
    """The same with weights and biases of the normalisation and of the MLP that are not those of the start."""
    generator = torch.Generator().manual_seed(0)
    for each in network.parameters():
        if each.ndim == 1:
            each.data += 0.1 * torch.randn(each.shape, generator=generator)
    return network


def test_biases_and_normalisation_of_a_trained_network_are_accounted_for(send, context, exact):
    observation, truth = send(2, mend=trained)
    assert exact(truth, TokenSpan()(observation, context()).reconstruction.images) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("model", "batch_size", "least"), [("patch=16", 7, 6), ("patch=8", 2, 2)])
def test_up_to_where_products_of_tokens_fit_the_neurons(send, context, exact, model, batch_size, least):
    observation, truth = send(batch_size, 1, f"vit-tiny:{model}")
    found = TokenSpan()(observation, context()).reconstruction
    assert exact(truth, found.images) >= least


def test_the_same_seed_gives_the_same_bits(send, context):
    observation, _ = send(2)
    one, other = (TokenSpan()(observation, context(3)).reconstruction.images for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("defense", ["dp", "pruning", "fedavg:epochs=2"])
def test_what_hides_the_ranks_is_said(send, context, defense):
    found = TokenSpan()(send(2, defense=defense)[0], context()).reconstruction
    assert len(found.images) == 0
    assert "rank" in found.diagnostics["finding"]


@pytest.mark.parametrize(
    ("model", "batch_size", "reason"),
    [
        ("mlp", 1, "a layer that embeds the image's patches"),
        ("vit-tiny:depth=1", 1, "1 x 65 tokens are too many"),
        ("vit-tiny:depth=2,patch=16", 8, "8 x 5 tokens are too many: needs fewer patches than the 768"),
    ],
)
def test_where_it_cannot_apply_it_says_why(send, context, model, batch_size, reason):
    run = TokenSpan()(send(batch_size, model=model)[0], context())
    assert run.status == "skipped"
    assert reason in run.reason


def test_more_images_than_fit_are_found_out_where_their_number_is_not_known(send, context):
    found = TokenSpan()(send(8, knows="nothing")[0], context()).reconstruction
    assert "8 x 5 tokens are too many" in found.diagnostics["finding"]


@pytest.mark.parametrize("name", ["embed.weight", "blocks.0.attention.qkv.weight", "blocks.0.mlp.0.bias"])
def test_what_the_update_lacks_is_named(send, context, name):
    observation, _ = send(1)
    tensors = {key: each for key, each in observation.update.tensors.items() if key != name}
    run = TokenSpan()(replace(observation, update=replace(observation.update, tensors=tensors)), context())
    assert (run.status, f"the update has no '{name}'" in run.reason) == ("skipped", True)


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_the_block_is_found_with_its_heads(heads):
    network = create("model", f"vit-tiny:patch=16,depth=2,width=48,heads={heads}").build(SHAPE, 10)
    block = find_block(network, SHAPE, find_patch_embedding(network, SHAPE))
    named = [block.first, block.qkv, block.out, block.second, block.up, block.down]
    assert named == [
        f"blocks.0.{each}" for each in ("first", "attention.qkv", "attention.out", "second", "mlp.0", "mlp.2")
    ]
    assert block.heads == heads
    torch.testing.assert_close(block.prefix, (network.token + network.positions[:, :1])[0])


def with_relu(network):
    network.blocks[0].mlp[1] = nn.ReLU()
    return network


def without_residual(network):
    block = network.blocks[0]
    block.forward = lambda x: block.attention(block.first(x)) + block.mlp(block.second(x))
    return network


@pytest.mark.parametrize("spoiled", [with_relu, without_residual])
def test_another_block_is_refused(spoiled):
    network = spoiled(create("model", "vit-tiny:patch=16,depth=1,width=48").build(SHAPE, 10))
    assert "needs a first block as in ViT" in find_block(network, SHAPE, find_patch_embedding(network, SHAPE))
