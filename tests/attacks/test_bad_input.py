"""Networks and budgets that leave the exact attacks little: what can be had comes back, and never a traceback."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from gibench.observation import Observation, ThreatModel, Update
from tests.attacks.test_certificates import ATTACKS, claims


def network(photos, second, seed=0):
    """A network whose second layer has so many outputs."""
    torch.manual_seed(seed)
    layers = nn.Flatten(), nn.Linear(3072, 200), nn.ReLU(), nn.Linear(200, second), nn.ReLU(), nn.Linear(second, 10)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(("second", "images", "sure"), [(3, 6, 0), (6, 8, 8)])
def test_a_batch_above_the_rank_of_the_second_layer_is_left_to_sparse_columns(
    see, context, photos, second, images, sure
):
    seen = see(8, model=network(photos, second))
    _, certified, _, result = claims("layer-pair", seen, context)
    assert certified == 0
    assert result.diagnostics["finding"]
    exact, certified, false, _ = claims("spearpp", seen, context)
    assert false == 0
    assert exact >= images
    assert certified >= sure


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("dead", "images"), [(60, 0), (30, 6)])
def test_a_second_layer_that_is_dead_sends_nothing_back_and_a_part_of_it_enough(
    see, context, photos, attack, dead, images
):
    model = network(photos, 60)
    with torch.no_grad():
        model[3].bias[:dead] = -100
    exact, certified, false, result = claims(attack, see(6, model=model), context)
    assert (exact, certified, false) == (images, images, 0)
    assert images or "no rank gap" in result.diagnostics["finding"]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_images_of_one_pixel_have_no_rank_to_tell_them_by_but_that_of_their_features(context, attack, batch_size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 5))
    inputs = torch.randn(batch_size or 1, 1, 1, 1)
    loss = functional.cross_entropy(model(inputs), torch.arange(len(inputs)))
    found = torch.autograd.grad(loss, list(model.parameters()))
    update = Update(dict(zip(dict(model.named_parameters()), found, strict=True)))
    mean, std = torch.full((1,), 0.5), torch.full((1,), 0.25)
    run = ATTACKS[attack](
        Observation(model, update, (1, 1, 1), mean, std, 5, ThreatModel(), batch_size=batch_size), context()
    )
    if batch_size == 2 and attack == "spear":
        assert run.status == "skipped"
        assert "a batch of 2 is more than the 1" in run.reason
        assert "use larger images" in run.reason
    elif batch_size == 2:  # too many for the first layer's rank: the next one's tells features
        found, true = run.reconstruction.images.view(-1), (inputs * 0.25 + 0.5).clamp(0, 1).view(-1)
        assert run.reconstruction.diagnostics["layer"] == "3"
        torch.testing.assert_close(found.sort().values, true.sort().values)
    else:
        assert run.status == "ok"
        assert "no rank gap" in run.reconstruction.diagnostics["finding"]


BY_THEN = {  # how often a deadline has been asked when it passes, and how many of 20 images must be exact
    ("spearpp", 0): 10,  # one round of search for sparse columns
    ("layer-pair", 0): 0,
    ("spearpp", 150): 5,
    ("layer-pair", 150): 5,
    ("spearpp", 400): 12,
    ("layer-pair", 400): 12,
}


@pytest.mark.parametrize(("attack", "asked"), BY_THEN)
def test_what_is_found_by_a_deadline_comes_back(see, context, attack, asked):
    seen, calls, lent = see(20, 1), itertools.count(), context()
    object.__setattr__(lent, "expired", lambda: next(calls) >= asked)
    result = ATTACKS[attack].reconstruct(seen.observation, lent)
    exact = seen.exact(result.images)
    assert next(calls) > asked
    assert int(exact.sum()) >= BY_THEN[attack, asked]
    assert not (result.certified & ~exact).any()


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
def test_what_is_certified_by_a_deadline_stays_certified(see, context, attack):
    seen, lent, seconds = see(8), context(), itertools.count()
    object.__setattr__(lent, "expired", lambda: next(seconds) < 0)
    ATTACKS[attack].reconstruct(seen.observation, lent)
    asked, calls, late = next(seconds), itertools.count(), context()
    object.__setattr__(late, "expired", lambda: next(calls) >= asked)  # as soon as it is done
    result = ATTACKS[attack].reconstruct(seen.observation, late)
    assert result.certified.all()
    assert seen.exact(result.images).all()
