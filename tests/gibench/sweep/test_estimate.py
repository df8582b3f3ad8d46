"""How long the rest takes is told by finished jobs that are like it; a tally says how a grid gets on."""

from dataclasses import replace

import pytest

from gibench.axes import axes_of, expand
from gibench.cell import Cell
from gibench.result import Row
from gibench.sweep.estimate import Estimate, in_words, seconds_of
from gibench.sweep.tally import Tally


def cells(*attacks, seeds=1, **axes):
    return expand(
        Cell, {"attack": attacks, "seed": range(seeds), "device": ["cpu"], **{k: [v] for k, v in axes.items()}}
    )


def row_of(cell, status="ok", **more):
    return Row(**{name: getattr(cell, name) for name in axes_of(Cell)}, cell=cell.key, status=status, **more)


def test_the_more_alike_the_better():
    small, large, other, unknown = (
        cells("spearpp")[0],
        cells("spearpp", batch_size=64)[0],
        cells("spearpp", defense="dp")[0],
        cells("dlg")[0],
    )
    estimate = Estimate()
    assert estimate.seconds(small) is None
    estimate.add(row_of(large), 100.0)
    assert estimate.seconds(small) == 100.0  # of the same attack, for want of better
    estimate.add(row_of(other), 10.0)
    assert estimate.seconds(small) == 10.0  # of the same network and batch size too
    estimate.add(row_of(replace(small, seed=5)), 1.0)
    assert estimate.seconds(small) == 1.0  # all but the seed
    assert estimate.seconds(unknown) is None
    assert estimate.left([small, small, large, unknown]) == (102.0, 1)


@pytest.mark.parametrize(
    ("row", "seconds"),
    [
        ({"beside": {"seconds.attack": 2.0, "seconds.scoring": 0.5, "diagnostics.gap": 99.0}, "runtime_s": 1.9}, 2.5),
        ({"runtime_s": 1.9}, 1.9),
        ({}, None),
    ],
)
def test_a_row_says_what_it_took(row, seconds):
    assert seconds_of(row_of(cells("random")[0], **row)) == seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (9000, "2.5 h"), (200_000, "2.3 days")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_tally_counts_and_says_what_is_left():
    jobs = cells("random", "spearpp", seeds=4)
    tally = Tally(jobs)
    assert (tally.counts(), tally.ended(), tally.seconds_left()) == ("0 done", "none", None)
    by_name = {name: [job for job in jobs if job.attack.startswith(name)] for name in ("random", "spearpp")}
    tally.count(row_of(by_name["random"][0], runtime_s=2.0), None, True)
    assert tally.seconds_left() == 6.0
    tally.count(row_of(by_name["spearpp"][0], "failed"), 10.0, False)
    tally.count(row_of(by_name["spearpp"][1], "skipped"), 20.0, False)
    assert tally.counts() == "3 done, 1 failed, 1 skipped"
    assert tally.ended() == "1 ok, 1 failed, 1 skipped (1 by an earlier call)"
    assert tally.seconds_left() == 3 * 2.0 + 2 * 15.0
    running = [(by_name["spearpp"][2], 5.0), (by_name["random"][1], 99.0)]  # the second is late, and no less than done
    assert tally.seconds_left(running) == (3 * 2.0 + 2 * 15.0 - 5.0 - 2.0) / 2
