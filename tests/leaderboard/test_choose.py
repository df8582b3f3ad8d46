"""Filters take what sweep's `--only` takes, and never change what is compared."""

import pytest

from gibench.errors import UsageError
from gibench.leaderboard import choose
from gibench.leaderboard.relative import place
from gibench.leaderboard.table import grouped


def kept(rows, *texts):
    return choose.filtered(rows, choose.wanted(texts))


@pytest.mark.parametrize(
    ("text", "stored", "fits"),
    [
        ("dp", "dp:delta=1e-05,max_grad_norm=1.0", True),
        ("dp:delta=0.00001", "dp:delta=1e-05,max_grad_norm=1.0", True),
        ("dp:max_grad_norm=1", "dp:delta=1e-05,max_grad_norm=1.0", True),
        ("dp:max_grad_norm=2", "dp:delta=1e-05,max_grad_norm=1.0", False),
        ("dp:other=1", "dp:delta=1e-05,max_grad_norm=1.0", False),
        ("dp", "clip:norm=1.0+dp:delta=1e-05", False),
        ("dp+clip:norm=1", "clip:norm=1.0+dp:delta=1e-05", True),
        ("wrong-gradient:attack=dlg", "wrong-gradient:attack='dlg:boxed=false,restarts=1'", True),
        ("wrong-gradient:attack='dlg:restarts=2'", "wrong-gradient:attack='dlg:boxed=false,restarts=1'", False),
        ("gone", "gone:setting=1", True),
    ],
)
def test_a_spec_fits_those_that_have_its_settings(text, stored, fits):
    assert choose.fits(text)(stored) == fits


def test_values_of_one_axis_are_either_and_axes_are_both(make_stored):
    rows = [make_stored(seed=seed, batch_size=size) for seed in range(4) for size in (8, 20)]
    assert kept(rows, "seed=1-2", "batch-size=8") == [rows[2], rows[4]]
    assert kept(rows, "seed=0", "seed=3") == [*rows[:2], *rows[6:]]
    assert kept(rows, "knows=prior,batch_size,local_hyperparameters") == rows  # in another order
    assert kept(rows) == rows


def test_the_status_is_one_too(make_stored):
    rows = [make_stored(), make_stored(seed=1, status="failed")]
    assert kept(rows, "status=failed") == rows[1:]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("attack", "--filter attack names no value: write AXIS=VALUE, such as attack=spearpp"),
        ("psnr_mean=1", "--filter has no axis 'psnr_mean': there are attack, batch_size, dataset, "),
        ("status=fine", "--filter: status=fine is refused: there are ok, skipped, budget_exhausted, "),
        ("batch_size=many", "--filter: batch_size='many' is refused"),
        ("batch_size=64", "none of 1 rows has batch_size=64: there are 20"),
        ("attack=dlg", "none of 1 rows has attack=dlg: there are spearpp:preset=ours,restarts=3"),
        ("defense=a:b", "is no setting"),
    ],
)
def test_a_mistake_says_what_there_is(make_stored, text, complaint):
    with pytest.raises(UsageError) as error:
        kept([make_stored()], text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_an_attack_is_named_by_its_defaults_where_variants_fit(make_stored):
    def shorten(kind, spec):
        return spec.replace(":parts=all", "")

    rows = [make_stored(attack=f"one:parts={parts}") for parts in ("all", "none", "some")]
    groups = grouped(rows)
    (found,) = choose.attack_named("one", groups, shorten, "--baseline").items()
    assert found == (place(groups[0]), groups[0])
    assert choose.attack_named("one:parts=some", groups, shorten, "--baseline") == {place(groups[2]): groups[2]}
    with pytest.raises(UsageError, match="--baseline one may be one:parts=none or one:parts=some: write more of its"):
        choose.attack_named("one", groups[1:], shorten, "--baseline")
    with pytest.raises(UsageError, match="--compare two is no attack among the rows: there are one, one:parts=none"):
        choose.attack_named("two", groups, shorten, "--compare")


def test_a_defense_twice_is_another_than_once():
    once, twice = "noise:std=0.1", "noise:std=0.1+noise:std=0.2"
    assert [choose.fits("noise")(stored) for stored in (once, twice)] == [True, False]
    assert [choose.fits("noise+noise:std=0.2")(stored) for stored in (once, twice)] == [False, True]
    assert not choose.fits("noise+noise:std=0.1")(twice)
