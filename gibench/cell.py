"""One cell of the benchmark, and its axes, each declared here once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gibench.axes import axis
from gibench.job import Job, Progress
from gibench.threat_model import KNOWLEDGE, ThreatModel

if TYPE_CHECKING:
    from gibench.result import Result


def _device(name: str) -> str:
    from gibench import device

    return device.choose(name).type


def _threads(count: str) -> int:
    from gibench import device

    return device.choose_threads(count)


@dataclass(frozen=True)
class CellAxes:
    """What can be varied. The first varies slowest: a batch and a model meet every defense and attack in turn."""

    seed: int = axis(0, "A number, or a range as 0-9.", "N|N-M", int, ranges=True, least=0, compared=False)
    dataset: str = axis("photos", "Images to attack.", plugin="dataset")
    split: str = axis(
        "private", "Split that the batches are of; tune on tuning.", choices=("private", "tuning"), before="private"
    )
    model: str = axis("mlp", "Network the gradient is of.", plugin="model")
    train_steps: int = axis(0, "Training steps on the training split first.", kind=int, least=0, most=10**9)
    mode: str = axis(
        "train",
        "Of the client's network: BatchNorm by the batch and dropout, or by running statistics and none.",
        choices=("train", "eval"),
        before="train",
    )
    dtype: str = axis(
        "float32",
        "Of model and gradient; bfloat16 and float16 are what is sent of a float32 gradient.",
        choices=("float32", "float64", "bfloat16", "float16"),
    )
    device: str = axis("auto", "Where to compute.", choices=("auto", "cpu", "cuda"), canonical=_device, of_machine=True)
    threads: int = axis(
        "auto",
        "CPU threads; their number changes the last bits.",
        "N|auto",
        int | str,
        canonical=_threads,
        of_machine=True,
        compared=False,
    )
    batch_size: int = axis(20, "Private images of each client.", kind=int, least=1, most=10**9)
    labels: str = axis(
        "iid", "Composition of a batch's labels.", choices=("iid", "unique", "same"), formerly="labels_policy"
    )
    knows: str = axis(
        str(ThreatModel()),
        f"What the server knows: some of {', '.join(KNOWLEDGE)}, joined by commas, or nothing. "
        "bn_statistics are those of the batch; bn_statistics=inferred has clients send BatchNorm's running ones, "
        "bn_statistics=running are those of the network sent.",
        "FACTS",
        canonical=lambda text: str(ThreatModel.parse(text)),
        formerly="threat_model",
    )
    defense: str = axis("none", "Defense; + composes several.", plugin="defense", compared=False)
    attack: str = axis(None, "Attack; repeat for several.", plugin="attack", compared=False)


@dataclass(frozen=True)
class Cell(CellAxes, Job):
    """What is run once."""

    harness: ClassVar[str] = "gibench.stages"

    def check(self, plan: bool = False) -> None:
        from gibench import checks

        checks.check(self, plan)

    def run(self, progress: Progress) -> Result:
        from gibench import experiment

        return experiment.run_cell(self, progress)
