"""The suites that come with gibench, by their names: what `gibench sweep smoke` runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from gibench.errors import UsageError
from gibench.leaderboard import suites as installed
from gibench.text import RENAME, is_storable


def suites() -> Mapping[str, Path]:
    """The files of the suites that are installed, by name, sorted."""
    return {file.stem: file for file in sorted(Path(installed.__path__[0]).glob("*.yaml"))}


def summary(suite: Path) -> str:
    """What a suite's file says of itself in the comment that it begins with, up to the command that runs it."""
    lines = takewhile(lambda line: line.startswith("#"), suite.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines).partition(": gibench sweep ")[0]


def find(suite: Path) -> Path:
    """The file that is meant: the one at this path if there is one, else the installed suite of this name.

    Raises:
        UsageError: there is neither; or the path cannot be stored, as a suite's name is.
    """
    if not is_storable(str(suite)):
        raise UsageError(f"the suite {str(suite)!r} has a name whose bytes are no UTF-8: {RENAME}")
    if os.path.isfile(suite):  # that of pathlib raises where a name is too long
        return suite
    known = suites()
    if str(suite) in known:
        return known[str(suite)]
    if suite.suffix or len(suite.parts) > 1 or os.path.exists(suite):
        return suite  # a path, whose reader says what is wrong with it
    raise UsageError(f"there is no suite {suite}: give a file, or one of {', '.join(known)}")
