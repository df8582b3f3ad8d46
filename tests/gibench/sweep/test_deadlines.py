"""Wherever a cell runs on, its time ends it: in its training, while the attack is asked, or with a million images."""

import pytest

from gibench import stages
from gibench.attack import MOST_IMAGES
from gibench.sweep.executors import Local, Processes
from tests.gibench.sweep.test_workers import cells, hostile, run

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.mark.slow
def test_training_that_runs_on_ends_as_its_own_row(monkeypatch):
    monkeypatch.setattr("gibench.sweep.pair.PATIENCE", 0.0)
    (row,) = (each.row for each in run(cells("random", train_steps=10**9, timeout=1.0), Processes()))
    assert row.status == "timeout"
    assert row.reason == (
        "preparing the cell, before any attack: it ran on past its deadline and was ended: raise --timeout"
    )
    assert row.n_reconstructed is row.psnr_mean is None  # it is charged to no attack


def test_an_attack_that_runs_on_while_it_is_asked_whether_it_applies_is_stopped():
    (row,) = (each.row for each in run(cells(hostile("supports"), timeout=0.05), Local()))
    assert (row.status, row.reason) == ("timeout", stages.OVERRAN)
    assert (row.n_reconstructed, row.exact_rate) == (0, 0.0)


def test_a_million_images_are_counted_and_the_first_of_them_scored():
    (row,) = (each.row for each in run(cells(hostile("million"), timeout=600.0), Local()))
    assert (row.status, row.n_reconstructed) == ("ok", 10**6)


def test_a_million_images_after_the_deadline_are_a_timeout_that_is_scored(monkeypatch):
    monkeypatch.setattr("gibench.stages.grace", lambda timeout: 3600.0)  # a busy machine may take long to return
    looked_at = []
    score = stages.score
    monkeypatch.setattr(stages, "score", lambda *given: looked_at.append(len(given[1].images)) or score(*given))
    (result,) = run(cells(hostile("late-million"), timeout=0.05), Local())
    assert (result.row.status, result.row.n_reconstructed, looked_at) == ("timeout", 10**6, [MOST_IMAGES])
    assert result.row.mse_mean > 0
    assert len(result.images) == result.row.n_true
