"""What `gibench utility` is asked for: axes and fixed settings, validated before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gibench.cell import Cell
from gibench.job import Job
from gibench.result import StoredRow
from gibench.sweep.request import Request, with_axes
from gibench.sweep.suite import Suite
from gibench.utility.job import Trial, TrialRow

if TYPE_CHECKING:
    Axes = Request
else:
    Axes = with_axes(Trial)


class Utility(Axes):
    """The options of `gibench utility`; a list is an axis. No defense is among the defenses, to compare them with."""

    job: ClassVar[type[Job]] = Trial
    row: ClassVar[type[StoredRow]] = TrialRow

    @classmethod
    def of_suite(cls, suite: Suite, cells: Iterable[Cell]) -> list[Self]:
        """What tells the cost of a suite's defenses: each with the models and batch sizes that it is used at."""
        wanted: dict[tuple[Any, ...], list[str]] = {}
        for cell in cells:
            wanted.setdefault((cell.model, cell.batch_size, cell.device, cell.threads), []).append(cell.defense)
        where = {"tracking_uri": suite.tracking_uri, "experiment": suite.experiment, "dataset": suite.utility}
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
