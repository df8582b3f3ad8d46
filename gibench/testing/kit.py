"""Runs the checks of a kind of plugin, one after the other, each under a name of its own."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from gibench.errors import GibenchError, UsageError
from gibench.registry import GROUPS
from gibench.testing.subject import FaultError, NotHereError
from gibench.text import one_line

Check = Callable[[Any], str]  # a subject to what was found, in words


@dataclass(frozen=True)
class Finding:
    """What one check found: `ok`, `fault`, or `not here` where there is nothing to check."""

    check: str
    outcome: Literal["ok", "fault", "not here"]
    detail: str


def checks(kind: str) -> Mapping[str, Check]:
    """The checks of a kind of plugin by name, in the order in which they are best read.

    Raises:
        UsageError: no such kind.
    """
    if kind not in GROUPS:
        raise UsageError(f"'{kind}' is no kind of plugin: there are {', '.join(GROUPS)}")
    found: Sequence[Check] = import_module(f"gibench.testing.{kind}s").CHECKS
    return {check.__name__: check for check in found}


def about(check: Check) -> str:
    """What a check is for, on one line."""
    return " ".join((inspect.getdoc(check) or "").split())


def findings(kind: str, spec: str, only: Sequence[str] = (), **home: Any) -> Iterator[Finding]:
    """Check a plugin, which is found by its entry point as in a run.

    Args:
        kind: `attack`, `defense`, `dataset` or `model`.
        spec: its name, with settings that let it be quick.
        only: the names of the checks that are wanted; all without it.
        home: the axes of the scenario in which it is at its best, as in a suite: `model="linear"`, `batch_size=1`.

    Raises:
        UsageError: no such plugin, check or scenario.
    """
    known = checks(kind)
    if unknown := [name for name in only if name not in known]:
        raise UsageError(f"there is no check '{unknown[0]}' of {kind}s: there are {', '.join(known)}")
    subject = import_module(f"gibench.testing.{kind}s").Subject(spec, home)
    for name, check in known.items():
        if name in (only or known):
            yield _finding(name, check, subject)


def conformance(kind: str, spec: str, **home: Any) -> Callable[[str], None]:
    """A test for pytest that has each check as a case: `test_mine = conformance("attack", "mine")`.

    Args:
        kind, spec, home: see `findings`.
    """
    import pytest

    @pytest.mark.parametrize("check", list(checks(kind)))
    def conforms(check: str) -> None:
        (found,) = findings(kind, spec, [check], **home)
        if found.outcome == "not here":
            pytest.skip(found.detail)
        assert found.outcome == "ok", f"{check} ({about(checks(kind)[check])}): {found.detail}"

    return conforms


def _finding(name: str, check: Check, subject: Any) -> Finding:
    try:
        with redirect_stdout(io.StringIO()):  # what is printed is the business of one check
            return Finding(name, "ok", check(subject))
    except NotHereError as reason:
        return Finding(name, "not here", str(reason))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a plugin raises is its fault
        text = one_line(error)
        told = isinstance(error, FaultError | GibenchError)
        return Finding(name, "fault", text if told else f"{type(error).__name__}: {text}")
