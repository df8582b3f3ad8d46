"""Attacks on the audited update that overrun, fail or end the process, and what is left of the others."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from gibench.audit import attempts
from gibench.audit.attempts import attempt_all
from gibench.audit.observe import observation_of
from gibench.audit.protocol import Protocol
from tests.gibench.audit.conftest import MEAN, SHAPE, STD

CPU = torch.device("cpu")


@pytest.fixture
def seen(plain):
    protocol = Protocol(image_shape=SHAPE, mean=(MEAN,), std=(STD,))
    return observation_of(plain.model, plain.gradient, True, protocol, 10)


def attempt(seen, *specs, seconds=600.0):
    return attempt_all(seen, specs, CPU, time.monotonic() + seconds, lambda message, share: None, chosen=True)


@pytest.mark.parametrize("seconds", [0.5, 4, 60, 600])
def test_an_attack_is_asked_to_end_before_it_is_ended_and_ended_by_the_deadline(seen, monkeypatch, seconds):
    asked, limits = [], []
    real, stop = attempts.Context, attempts.hard_stop

    def context(generator, device, deadline, *rest, **options):
        asked.append(deadline)
        return real(generator, device, None, *rest, **options)

    def hard_stop(limit):
        limits.append(limit)
        return stop(None)

    monkeypatch.setattr(attempts, "Context", context)
    monkeypatch.setattr(attempts, "hard_stop", hard_stop)
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: 1000.0, perf_counter=lambda: 0.0))
    attempt_all(seen, ["analytic"], CPU, 1000 + seconds, lambda message, share: None, chosen=True)
    assert limits == [pytest.approx(seconds)]
    assert 1000 + seconds / 2 <= asked[0] <= 1000 + seconds - min(2, seconds / 2)


@pytest.mark.usefixtures("plugins")
def test_what_does_not_return_is_ended_and_the_next_is_tried(seen, monkeypatch):
    hung = attempt(seen, "hangs-deaf", seconds=1.0)
    assert [(each.status, each.found) for each in hung] == [("timeout", None)]
    assert "raise it" in hung[0].reason
    monkeypatch.setattr(attempts, "hard_stop", lambda limit: nullcontext())  # a busy machine may take long to return
    late = attempt(seen, "returns-late", seconds=1.0)
    assert late[0].status == "timeout"
    assert len(late[0].found.images)  # what it has by then counts
    assert "--timeout" not in late[0].reason


@pytest.mark.usefixtures("plugins")
def test_what_fails_or_ends_the_process_is_told_and_the_next_is_tried(seen):
    done = attempt(seen, "exits", "raises", "returns-nan", "layer-pair")
    assert [each.status for each in done] == ["failed", "failed", "failed", "ok"]
    assert done[0].reason.startswith("SystemExit")
    assert done[-1].certified == 8


@pytest.mark.usefixtures("plugins")
def test_what_an_attack_overwrites_is_not_the_audited_model(plain, seen):
    attempt(seen, "overwrites")
    protocol = Protocol(image_shape=SHAPE, mean=(MEAN,), std=(STD,))
    again = observation_of(plain.model, plain.gradient, True, protocol, 10)
    assert attempt(again, "layer-pair")[0].certified == 8
