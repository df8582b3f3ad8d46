"""The table in 80 columns: nothing runs over, what there is no room for is named."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gibench.leaderboard import terminal
from gibench.leaderboard.columns import SHOWN
from gibench.leaderboard.sections import of_summary
from gibench.leaderboard.table import summarize
from gibench.leaderboard.terminal import to_terminal

LONG = "dp:delta=1e-05,max_grad_norm=1.0,noise_multiplier=0.0001"


def printed(summary, width=80, columns=None):
    return drawn(to_terminal(of_summary(summary, columns), width=width), width)


def drawn(what, width):
    console = Console(width=width, file=io.StringIO())
    console.print(what)
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


TEXTS = st.text(st.sampled_from("ab,:=+- 写真"), max_size=30)  # the last two are two columns wide each


@settings(max_examples=60)
@given(
    texts=st.lists(st.tuples(TEXTS, TEXTS.map(lambda text: text.replace(" ", "\n")), TEXTS), min_size=1, max_size=4),
    widths=st.tuples(*[st.integers(8, 16)] * 3),
    gap=st.integers(1, 2),
)
def test_lines_stand_as_rich_would_draw_them(texts, widths, gap):
    """It takes too long over thousands."""
    chosen = {name: SHOWN[name] for name in ("attack", "n_ok", "runtime_s")}
    whole = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for each, width in zip(chosen.values(), widths, strict=True):
        side = "left" if each.is_text else "right"
        whole.add_column(Text(each.heading), justify=side, overflow="fold", width=width)
    for line in texts:
        broken = ("\n".join(terminal._broken(text, width)) for text, width in zip(line, widths, strict=True))
        whole.add_row(*map(Text, broken))
    cells = dict(zip(chosen, zip(*texts, strict=True), strict=True))
    table = terminal._table(chosen, cells, dict(zip(chosen, widths, strict=True)), gap)
    assert drawn(table, 80) == drawn(whole, 80)
    assert all(cell_len(line) <= sum(widths) + 2 * gap for line in drawn(table, 80).splitlines())
    kept = "".join(
        "".join(terminal._broken(text, width)) for line in texts for text, width in zip(line, widths, strict=True)
    )
    assert kept.replace(" ", "") == "".join(map("".join, texts)).replace(" ", "").replace("\n", "")
