"""One training run, its axes and its row: what a defense costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gibench.axes import axis, same_axis
from gibench.cell import CellAxes
from gibench.job import Job, Progress
from gibench.result import Promise, StoredRow, measured

if TYPE_CHECKING:
    from gibench.result import Result


@dataclass(frozen=True)
class TrialAxes:
    """What can be varied; the first varies slowest."""

    dataset: str = same_axis(CellAxes, "dataset", default="digits", help="Images to train and to test on.")
    model: str = same_axis(CellAxes, "model", help="Network that is trained.")
    device: str = same_axis(CellAxes, "device")
    threads: int = same_axis(CellAxes, "threads")
    batch_size: int = same_axis(CellAxes, "batch_size", help="Images of each client and round.")
    rounds: int = axis(300, "Updates that the server takes.", kind=int, least=1, most=10**9)
    defense: str = same_axis(CellAxes, "defense")
    seed: int = same_axis(CellAxes, "seed", default="0-2")


@dataclass(frozen=True)
class Trial(TrialAxes, Job):
    """What is trained once."""

    harness: ClassVar[str] = "gibench.utility.trial"

    def check(self, plan: bool = False) -> None:
        from gibench.checks import at_hand
        from gibench.experiment import load
        from gibench.utility import trial

        if not plan or at_hand(self.dataset):
            trial.check(self, load(self.dataset))

    def run(self, progress: Progress) -> Result:
        from gibench.utility import trial

        return trial.run(self, progress)


@dataclass(frozen=True)
class TrialRow(Promise, TrialAxes, StoredRow):
    """What one training run gave."""

    key_column: ClassVar[str] = "utility"

    utility: str = measured("tag", "Key of the training run: a hash of all that decides its result.", default="")
    accuracy: float | None = measured("metric", "On the test images, after the last round.")
    loss: float | None = measured("metric", "Mean cross-entropy on the test images.")
    round_s: float | None = measured("metric", "Seconds of the clients' computation in a round, the median.")
    round_bytes: float | None = measured("metric", "Bytes of a client's update, the mean over the first rounds.")
