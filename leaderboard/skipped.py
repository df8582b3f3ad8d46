"""Where attacks can never apply: the cells of a suite that were skipped, and the reason each gave."""

from __future__ import annotations

from pathlib import Path

from gibench.registry import readable
from gibench.result import Row
from gibench.text import code, prose

from .formats import markdown_table
from .published import read
from .render import NOT_MEASURED
from .table import newest


def skipped_table(file: Path) -> str:
    """A line for each attack and reason, with the networks and batches where it was skipped for it."""
    if not file.exists():
        return NOT_MEASURED
    networks: dict[tuple[str, str, str], list[str]] = {}  # of an attack, a reason and batch sizes
    sizes: dict[tuple[str, str, str], set[int]] = {}
    for row in newest(read(Row, file)):
        if row.status == "skipped" and not row.control:
            sizes.setdefault((row.attack, row.model, row.reason or ""), set()).add(row.batch_size)
    for (attack, model, reason), batches in sizes.items():
        line = attack, ", ".join(map(str, sorted(batches))), reason
        networks.setdefault(line, []).append(code(readable("model", model)))
    body = [
        [code(readable("attack", attack)), ", ".join(sorted(set(models))), batches, prose(reason)]
        for (attack, batches, reason), models in networks.items()
    ]
    return f"\n{markdown_table(['attack', 'network', 'batch', 'why it is skipped'], body)}\n" if body else NOT_MEASURED
