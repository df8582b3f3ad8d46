"""A hard stop for an attack that does not return by itself after its deadline."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 0.01  # seconds after which a stop that Python dropped is tried again


class DeadlinePassed(BaseException):
    """Raised inside an attack that overran; no `Exception`, so that an attack's own handlers let it through."""


def grace(timeout: float) -> float:
    """Seconds after the deadline in which an attack may still return what it has."""
    return max(2.0, 0.1 * timeout)


@contextmanager
def hard_stop(seconds: float | None) -> Iterator[None]:
    """Raise `DeadlinePassed` in the body once so many seconds have passed; None never does.

    It works through SIGALRM: where there is none, and outside the main thread, an attack is only asked to stop. Code
    that stays inside one native call is stopped when that call returns, and code whose exceptions Python drops, as in
    the callback of a weak reference or in `__del__`, once it is done, without a word about the dropped one.
    """
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    armed = True

    def stop(number: int, frame: FrameType | None) -> None:
        if armed:
            raise DeadlinePassed

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not DeadlinePassed:
            report(unraisable)
        elif armed:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN, 1.0)

    report, previous = sys.unraisablehook, signal.signal(signal.SIGALRM, stop)
    try:
        sys.unraisablehook = dropped
        # It rings again every second, should native code have swallowed the exception.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # and may do so before the body begins
        yield
    finally:
        armed = False  # a ring from here on must not keep the handler from being put back
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        sys.unraisablehook = report
