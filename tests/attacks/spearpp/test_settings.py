"""The settings of SPEAR++ that the papers compare: which combinations run, and their defaults."""

import pytest

from gibench.attacks.adaptive.pruned import PrunedSpearPP
from gibench.attacks.spearpp import SpearPP
from gibench.attacks.spearpp.objectives import OBJECTIVES
from gibench.attacks.spearpp.optimizers import OPTIMIZERS
from gibench.errors import UsageError
from gibench.registry import resolve, shorten


def chosen(**settings):
    return SpearPP.from_settings("spearpp", settings)


@pytest.mark.parametrize("preset", ["full", "paper"])
@pytest.mark.parametrize("rounding", ["refine", "sample"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_combination_runs_or_is_refused(see, context, preset, rounding, objective, optimizer):
    settings = {"preset": preset, "rounding": rounding, "objective": objective, "optimizer": optimizer}
    if (objective, optimizer) == ("l1", "rtr"):
        with pytest.raises(UsageError, match=r"^spearpp: optimizer=rtr needs second derivatives.*use l4, huber"):
            chosen(**settings)
        return
    run = chosen(**settings, rounds="1", iterations="20")(see(3).observation, context())
    assert run.status == "ok"
    assert run.reconstruction.images.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "iterations", "step", "rounding"),
    [
        ({}, 100, 1.0, "refine"),
        ({"optimizer": "rgd"}, 200, 0.3, "refine"),
        ({"optimizer": "rtr", "objective": "huber"}, 100, 0.4, "refine"),
        ({"preset": "paper"}, 500, 0.6, "sample"),
        ({"preset": "paper", "step": "1"}, 500, 1.0, "sample"),
        ({"preset": "paper", "optimizer": "rgd", "rounding": "refine"}, 200, 0.3, "refine"),
        ({"optimizer": "rgd", "iterations": "7", "step": "0.5"}, 7, 0.5, "refine"),
    ],
)
def test_defaults_suit_the_optimizer_and_the_preset(settings, iterations, step, rounding):
    search = chosen(**settings)._settings()
    assert (search.iterations, search.step, search.rounding) == (iterations, step, rounding)


@pytest.mark.parametrize("rounding", ["refine", "sample"])
@pytest.mark.parametrize("preset", ["full", "paper"])
def test_the_short_form_of_a_spec_is_the_same_attack(preset, rounding):
    spec = f"spearpp:preset={preset},rounding={rounding},step=1.0"
    assert resolve("attack", shorten("attack", spec)) == resolve("attack", spec)


@pytest.mark.parametrize("text", ["splitting/next-layer", "next-layer/splitting/next-layer"])
def test_parts_are_left_out_in_any_order_and_named_in_one(text):
    attack = chosen(without=text)
    assert attack.settings()["without"] == "next-layer/splitting"
    assert attack._settings().without == {"next-layer", "splitting"}
    assert (
        str(shorten("attack", resolve("attack", f"spearpp:without={text}"))) == "spearpp:without=next-layer/splitting"
    )


def test_an_attack_that_leaves_a_part_out_by_itself_can_be_told_not_to():
    assert PrunedSpearPP()._settings().without == {"next-layer"}
    assert PrunedSpearPP.from_settings("it", {"without": "none"})._settings().without == set()


@pytest.mark.parametrize("text", ["deflaton", "", "deflation/", "next_layer", "deflation+purity"])
def test_a_part_that_there_is_not_is_refused_with_those_there_are(text):
    with pytest.raises(UsageError, match=r"^spearpp: without='.*there is no part '.*next-layer, .*joined by /$"):
        chosen(without=text)


def test_rows_stored_before_parts_were_one_setting_are_read_as_what_they_were():
    parts = "certificates=true,deflation={},last_images=true,next_layer={},purity=true,splitting=true"
    for name, deflation, following, now in [
        ("spearpp", "true", "true", "spearpp"),
        ("spearpp", "false", "false", "spearpp:without=next-layer/deflation"),
        ("spearpp-pruned", "true", "false", "spearpp-pruned"),
        ("spearpp-pruned", "true", "true", "spearpp-pruned:without=none"),
    ]:
        stored = f"{name}:{parts.format(deflation, following)},step=none"
        assert str(shorten("attack", stored)) == now


@pytest.mark.parametrize("bad", [{"objective": "l2"}, {"optimizer": "adam"}, {"rounding": "round"}, {"step": "0"}])
def test_unknown_values_are_refused_with_what_may_be(bad):
    with pytest.raises(UsageError, match="Input should be"):
        chosen(**bad)
