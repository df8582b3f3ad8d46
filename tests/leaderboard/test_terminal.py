"""The table in 80 columns: nothing runs over, what there is no room for is named."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gibench.leaderboard.columns import SHOWN
from gibench.leaderboard.sections import of_summary
from gibench.leaderboard.table import summarize
from gibench.leaderboard.terminal import to_terminal

LONG = "dp:delta=1e-05,max_grad_norm=1.0,noise_multiplier=0.0001"


def printed(summary, width=80, columns=None):
    console = Console(width=width, file=io.StringIO())
    console.print(to_terminal(of_summary(summary, columns), width=width))
    return console.file.getvalue()


@pytest.fixture
def summary(make_stored):
    names = ("spearpp", "wrong-gradient:attack=layer-pair", "mean-image")
    return summarize(
        make_stored(attack=name, control=name != "spearpp", defense=LONG, seed=seed, psnr_median=20.0 + seed)
        for name in names
        for seed in (0, 1)
    )


@pytest.mark.parametrize("width", [60, 80, 100, 140, 250])
def test_no_line_runs_over_and_the_scores_stand_whole(summary, width):
    text = printed(summary, width)
    assert max(map(len, text.splitlines())) <= width
    for whole in ("2 / 2", "0.950", "[0.950, 0.950]", "control"):
        assert whole in text


def test_eighty_columns_have_rank_rate_and_psnr_and_say_what_is_left_out(summary):
    text = printed(summary)
    assert "[20.00, 21.00]" in text
    said = " ".join(text.split("left out for want of room, see --columns: ")[1].split())
    left_out = said.partition(" seconds of")[0].split(", ")
    assert set(left_out) <= SHOWN.keys()
    assert not {"defense", "attack", "rank", "n_ok", "exact_rate", "psnr_median"} & set(left_out)
    assert {"ssim_mean", "runtime_s"} <= set(left_out)
    assert "left out" not in printed(summary, 250)


def test_a_spec_is_broken_after_punctuation(summary):
    begun = {line.split()[0] for line in printed(summary).splitlines() if line.strip()}
    assert begun >= {"dp:delta=1e-05,", "max_grad_norm=1.0,", "noise_multiplier=", "0.0001"}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(60, 130),
    columns=st.lists(st.sampled_from(sorted(SHOWN)), min_size=1, max_size=12, unique=True),
)
def test_what_is_asked_for_is_all_there(summary, width, columns):
    text = printed(summary, width, columns)
    assert max(map(len, text.splitlines())) <= width
    assert "left out" not in text
    heads = {word for name in columns for word in SHOWN[name].heading.split()}
    assert heads <= set(text.split())
