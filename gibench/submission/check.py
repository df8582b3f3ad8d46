"""The whole check of a submission."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gibench.submission import claims, content, figures, rules, schema
from gibench.submission.content import Manifest, Submission
from gibench.submission.findings import Finding

_MEND = "export what is stored anew, and change nothing"


@dataclass(frozen=True)
class Report:
    """What came of it."""

    manifest: Manifest
    submission: Submission
    faults: list[Finding]
    unchecked: list[str]  # what cannot be told here, in words


def check(file: Path) -> Report:
    """Everything that can be told without running a cell; `gibench.submission.rerun` runs some.

    Raises:
        UsageError: the file is no submission, or is refused.
    """
    manifest, found = content.read(file)
    faults = [Finding(name, "it is not what the manifest was made of", _MEND) for name in found.altered]
    unchecked = list(claims.unchecked(found.rows, found.codes))
    if found.costs:
        unchecked.append(f"{len(found.costs)} training runs say what defenses cost, which is not checked")
    if not found.rows:
        faults.append(Finding("rows.csv", "it has no rows", _MEND))
    faults += schema.faults(found.rows)
    faults += figures.faults(found.rows, found.images)
    faults += rules.faults(found.rows, found.images)
    faults += claims.faults(found.rows, found.codes)
    if found.suite is not None:
        faults += rules.against_suite(found.rows, found.suite, found.name)
    else:
        unchecked.append("it names no suite, so whether cells were left out is told by the seeds alone")
    return Report(manifest, found, faults, unchecked)
