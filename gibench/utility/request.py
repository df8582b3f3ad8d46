"""What `gibench utility` is asked for: axes and fixed settings, validated before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field

from gibench import device
from gibench.cell import Cell, canonical_defense
from gibench.plugin import Plugin
from gibench.registry import resolve
from gibench.sweep.suite import Axis, Seeds, Suite
from gibench.utility.trial import Trial


class Utility(Plugin):
    """The options of `gibench utility`; a list is an axis. No defense is among the defenses, to compare them with."""

    model_config = ConfigDict(strict=True)

    defense: Axis[str] = Field(["none"], description="defenses; + composes them")
    dataset: Axis[str] = Field(["digits"], description="images to train and to test on")
    model: Axis[str] = Field(["mlp"], description="the network that is trained")
    batch_size: Axis[Annotated[int, Field(ge=1)]] = Field([20], description="images of each client and round")
    rounds: int = Field(300, ge=1, le=100_000, description="updates that the server takes")
    seed: Seeds = Field([0, 1, 2], description="numbers, and ranges such as 0-9")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")
    tracking_uri: str | None = Field(None, min_length=1, description="the MLflow store")
    experiment: str = Field("gibench", min_length=1, description="the MLflow experiment")

    @classmethod
    def of_suite(cls, suite: Suite, cells: Iterable[Cell]) -> list[Self]:
        """What tells the cost of a suite's defenses: each with the models and batch sizes that it is used at."""
        wanted: dict[tuple[str, int, str], list[str]] = {}
        for cell in cells:
            wanted.setdefault((cell.model, cell.batch_size, cell.device), []).append(cell.defense)
        where = {"tracking_uri": suite.tracking_uri, "experiment": suite.experiment}
        return [
            cls.from_settings(
                f"the suite {suite.name}",
                {
                    "defense": list(dict.fromkeys(defenses)),
                    "dataset": suite.utility,
                    "model": model,
                    "batch_size": batch_size,
                    "device": found,
                    **where,
                },
            )
            for (model, batch_size, found), defenses in wanted.items()
        ]

    def trials(self) -> list[Trial]:
        """The training runs, each once; those without a defense first.

        Raises:
            UsageError: a plugin or a setting that does not exist, a value out of range, a device that is not there.
        """
        axes = (
            dict.fromkeys(str(resolve("dataset", each)) for each in self.dataset),
            dict.fromkeys(str(resolve("model", each)) for each in self.model),
            dict.fromkeys(self.batch_size),
            dict.fromkeys(map(canonical_defense, ["none", *self.defense])),
            dict.fromkeys(self.seed),
        )
        found = device.choose(self.device).type
        return [
            Trial(defense, dataset, model, batch_size, self.rounds, seed, found)
            for dataset, model, batch_size, defense, seed in itertools.product(*axes)
        ]
