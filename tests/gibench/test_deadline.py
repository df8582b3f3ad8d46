"""An attack that overruns is stopped; one that returns in time is left alone."""

import gc
import signal
import sys
import time
import weakref

import pytest

from gibench.deadline import DeadlinePassed, grace, hard_stop


def test_the_grace_is_two_seconds_and_a_tenth_of_long_timeouts():
    assert [grace(timeout) for timeout in (0.1, 20, 300)] == [2, 2, 30]


def swallow_exceptions():
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def swallow_the_first_of_all():
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)


def test_what_overruns_is_stopped_through_its_own_handlers():
    start = time.monotonic()
    with pytest.raises(DeadlinePassed), hard_stop(0.05):
        swallow_exceptions()
    assert time.monotonic() - start >= 0.05


def test_who_swallows_the_first_stop_is_stopped_again():
    with pytest.raises(DeadlinePassed), hard_stop(0.05):
        swallow_the_first_of_all()


class Held:
    """What is let go within a callback, whose exceptions Python drops, or within its own `__del__`."""

    def __init__(self, deletes):
        self.deletes = deletes

    def __del__(self):
        if self.deletes:
            time.sleep(60)


@pytest.mark.parametrize("deletes", [False, True])
def test_a_stop_that_python_drops_is_tried_again_without_a_word(deletes, monkeypatch):
    """A stop in the callback of a weak reference, as PyTorch's caches have, or in `__del__`."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    hook = sys.unraisablehook
    held = [Held(deletes)]
    watch = weakref.ref(held[0], lambda gone: None if deletes else time.sleep(60))

    def let_go():
        held.clear()
        time.sleep(60)

    with pytest.raises(DeadlinePassed), hard_stop(0.05):
        let_go()
    assert watch() is None
    assert (told, sys.unraisablehook) == ([], hook)


def test_what_python_drops_of_others_is_reported_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    held = Held(False)
    watch = weakref.ref(held, lambda gone: 1 / 0)
    with hard_stop(3600):
        del held
        gc.collect()
    assert (watch(), told) == (None, [ZeroDivisionError])


def test_what_returns_in_time_meets_no_stop_later():
    before = signal.getsignal(signal.SIGALRM)
    with hard_stop(3600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_stop_before_the_body_begins_leaves_nothing_armed(monkeypatch):
    """As on a machine so busy that the time is over before it is begun."""
    before, setitimer = signal.getsignal(signal.SIGALRM), signal.setitimer

    def rings_at_once(which, seconds, interval=0.0):
        setitimer(which, seconds, interval)
        if seconds:
            signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(signal, "setitimer", rings_at_once)
    with pytest.raises(DeadlinePassed), hard_stop(3600):
        pytest.fail("it was stopped before")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_handler_before_is_put_back():
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGALRM, mine)
    try:
        with pytest.raises(DeadlinePassed), hard_stop(0.01):
            time.sleep(60)
        assert signal.getsignal(signal.SIGALRM) is mine
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_timeout_sets_no_alarm():
    with hard_stop(None):
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
