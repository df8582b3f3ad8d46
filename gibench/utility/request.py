"""What `gibench utility` is asked for: axes and fixed settings, validated before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from gibench.cell import Cell
from gibench.sweep.request import Request, with_axes
from gibench.sweep.suite import Suite
from gibench.utility.job import Trial, TrialRow

if TYPE_CHECKING:
    Axes = Request
else:
    Axes = with_axes(Trial, TrialRow)


class Utility(Axes):
    """The options of `gibench utility`; a list is an axis. No defense is among the defenses, to compare them with."""

    @classmethod
    def of_suite(cls, suite: Suite, cells: Iterable[Cell]) -> list[Self]:
        """What tells the cost of a suite's defenses: each with the models and batch sizes that it is used at."""
        wanted: dict[tuple[Any, ...], list[str]] = {}
        for cell in cells:
            wanted.setdefault((cell.model, cell.batch_size, cell.device, cell.threads), []).append(cell.defense)
        where = {name: getattr(suite, name) for name in ("results", "tracking_uri", "experiment")}
        where |= {"dataset": suite.utility, "timeout": suite.timeout}
        return [
            cls.from_settings(
                f"the suite {suite.name}",
                where
                | dict(zip(("model", "batch_size", "device", "threads"), place, strict=True))
                | {"defense": list(dict.fromkeys(defenses))},
            )
            for place, defenses in wanted.items()
        ]

    def values(self) -> dict[str, list[Any]]:
        """As asked for, with `none` first among the defenses."""
        values = super().values()
        return values | {"defense": ["none", *values["defense"]]}
