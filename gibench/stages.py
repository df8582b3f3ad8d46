"""The stages of a cell: it is prepared, attacked and scored, and only the attack's is the attack's to see.

`Preparation` holds the truth. `attack` is called with what the server sees, in a process of its own if that is wanted,
and gives back an `Outcome`, whose score the preparation knows how to make.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from torch import nn

from gibench import chain, client, experiment, foreign, provenance, seeds, text
from gibench.attack import Attack, Context, non_finite
from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.datasets.base import Images, Split
from gibench.deadline import DeadlinePassed, grace, hard_stop
from gibench.device import threads
from gibench.errors import GibenchError, NotApplicableError
from gibench.job import Progress
from gibench.jsonable import jsonable
from gibench.observation import Observation
from gibench.outcome import OVERRAN, Facts, Outcome, Task
from gibench.registry import create
from gibench.result import Result, Row, Status
from gibench.scoring import grid_png, score
from gibench.threat_model import ThreatModel


def facts_of(attack: str) -> Facts:
    """What the attack of a spec says of itself."""
    plugin = cast(Attack, create("attack", attack))
    budget = None if plugin.budget is None else text.one_line(plugin.budget)
    return Facts(bool(plugin.adaptive), bool(plugin.oracle), bool(plugin.control), budget, bool(plugin.foreign))


def attack(task: Task, observation: Observation, progress: Progress) -> Outcome:
    """Attack an observation. Whatever it does, short of ending the process, is an outcome; Ctrl-C goes on."""
    start = time.perf_counter()
    limit = None if task.timeout is None else task.timeout + grace(task.timeout)
    device = torch.device(task.device)
    try:
        with threads(task.threads), seeds.seeded(task.seed), hard_stop(limit):
            plugin = cast(Attack, create("attack", task.attack))
            generator = torch.Generator(device).manual_seed(task.seed)
            deadline = None if task.timeout is None else time.monotonic() + task.timeout
            run = plugin(observation, Context(generator, device, deadline, progress))
            outcome = Outcome.of(run)
    except DeadlinePassed:
        outcome = Outcome("timeout", OVERRAN, runtime_s=time.perf_counter() - start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever fails in an attack is its cell's result
        outcome = failed(error)
    return replace(outcome, seconds=time.perf_counter() - start)


def failed(error: BaseException) -> Outcome:
    """What an attack gives that raised something; also where that is what harness and defenses raise to skip a cell."""
    return Outcome("failed", text_of(error), traceback=_traceback())


class Preparation:
    """The side of a cell that holds the truth: makes what is attacked, and scores what comes back."""

    def __init__(self, cell: Cell, facts: Facts, progress: Progress) -> None:
        self.cell, self.facts, self.progress = cell, facts, progress
        self.watch = Stopwatch()
        self.device = torch.device(cell.device)
        self.sent: torch.dtype = getattr(torch, cell.dtype)
        self.truth: Split | None = None
        self.provenance: dict[str, Any] = {}
        self.notes: dict[str, str] = {}  # of the harness, beside the attack's diagnostics
        self.doing = "reading the data"
        said = {name: value for name, value in asdict(facts).items() if name != "foreign"}
        self.row: dict[str, Any] = {name: getattr(cell, name) for name in axes_of(Cell)} | {"cell": cell.key} | said

    def observe(self) -> Observation | None:
        """What is to be attacked; None where the cell has ended before, and its `result` says how."""
        try:
            with threads(self.cell.threads):
                return self._observation()
        except NotApplicableError as refusal:
            self._ended("skipped", refusal)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever fails in a cell is that cell's result
            self._ended("failed", f"{self.doing}, before any attack: {text_of(error)}")
            self.provenance["traceback"] = _traceback()
        return None

    def result(self, outcome: Outcome | None = None) -> Result:
        """The row and what lies beside it.

        Args:
            outcome: of the attack, if there was one to be made.

        Raises:
            GibenchError: the scoring is not to be trusted.
        """
        images = grid = None
        if outcome:
            self._ended(outcome.status, outcome.reason)
            self.row |= {"runtime_s": outcome.runtime_s, "peak_memory_mb": outcome.peak_memory_mb}
            self.watch.seconds["attack"] = outcome.seconds or 0.0
            if outcome.traceback:
                self.provenance["traceback"] = outcome.traceback
            if outcome.status != "skipped":
                with threads(self.cell.threads), self.watch.stage("scoring"):
                    images, grid = self._score(outcome)
        return Result(
            Row(**jsonable(self.row)),
            images,
            grid,
            {**(outcome.diagnostics if outcome else {}), **jsonable(self.notes)},
            jsonable(self.provenance),
            self.watch.seconds,
        )

    def _observation(self) -> Observation | None:
        """Draw the truth, prepare the model and compute the update."""
        cell, row = self.cell, self.row
        with self.watch.stage("data"):
            self.truth = truth = experiment.draw(cell)
            images, split = experiment.load(cell.dataset), experiment.attacked(cell)
        self.provenance |= provenance.of(cell)
        row |= {
            "hardware": self.provenance["hardware"],
            "torch": provenance.torch_version(),
            "duplicate_labels": len(truth) - len(set(truth.labels.tolist())),
            "split_size": len(split),
            "n_true": len(truth),
        }
        with self.watch.stage("model"):
            self._begin("preparing the model")
            dtype = torch.promote_types(self.sent, torch.float32)  # what half precision is sent of
            state = (cell.dataset, cell.model, cell.train_steps, cell.seed, cell.device, cell.threads, dtype)
            model, row["model_accuracy"] = experiment.trained_model(*state)
            row["training_shares"] = images.training_shares if cell.train_steps else None
        with self.watch.stage("client"), seeds.isolated(cell.seed, "client"):
            self._begin("computing the update")
            release = self._release(model, images, truth, len(split))
            if not self._is_attackable(release, images):
                return None
            if not self.facts.foreign:
                return release.observation
            del release  # two may be more than the memory holds
            clients = chain.client_count(experiment.defenses(cell))
            generator = seeds.generator(cell.seed, "data")
            other, self.notes = foreign.draw(images, cell.batch_size, cell.labels, clients, generator)
            return replace(self._release(model, images, other, len(split)).observation, foreign=True)

    def _release(self, model: nn.Module, images: Images, batch: Split, split_size: int) -> client.Release:
        cell = self.cell
        return client.observe(
            model,
            images,
            batch,
            experiment.defenses(cell),
            ThreatModel.parse(cell.knows),
            seeds.generator(cell.seed, "defense", self.device),
            cell.batch_size,
            split_size,
            self.sent,
            cell.mode == "train",
        )

    def _is_attackable(self, release: client.Release, images: Images) -> bool:
        """Note what the update of the truth is, and whether there is anything to attack in it."""
        guarantee, update = release.guarantee, release.observation.update
        self.row |= guarantee.columns() | {"grad_norm": release.grad_norm}
        self.provenance["defense_costs"] = dict(guarantee.costs)
        if release.grad_norm == 0:
            raise NotApplicableError(_why_zero(images))
        if reason := non_finite(update):
            if update.kind == "gradient":
                self._ended("failed", reason)
            else:
                self._ended("diverged", "the clients' training left the finite numbers: lower their learning rate")
        return reason is None

    def _score(self, outcome: Outcome) -> tuple[Any, bytes]:
        """Score what was found, and mid-grey if nothing was returned or the attack diverged (rule E9)."""
        assert self.truth is not None  # what was attacked is of it
        self.progress("scoring", None)
        counted = None if outcome.status == "diverged" else outcome.reconstruction
        scored = score(self.truth.images, counted, self.truth.labels, experiment.attacked(self.cell).images)
        self.row |= scored.summary | {"n_reconstructed": outcome.n_reconstructed}
        return scored.images, grid_png(self.truth.images, scored)

    def _begin(self, what: str) -> None:
        self.doing = what
        self.progress(what, None)

    def _ended(self, status: Status, reason: object) -> None:
        """Note how it ended, the reason on one line, whatever a plugin gave as one."""
        self.row |= {"status": status, "reason": text.one_line(reason) or None}


def text_of(error: BaseException) -> str:
    """What was raised, in words."""
    words = text.text_of(error)
    return words if isinstance(error, GibenchError) else f"{type(error).__name__}: {words}"


def _traceback() -> str | None:
    try:
        return traceback.format_exc()
    except Exception:  # made of what was raised, whose code can fail
        return None


def _why_zero(images: Images) -> str:
    """What a gradient of zero comes of."""
    cause = (
        "the network tells one class apart, so its loss is the same for every input: use a data set with two or more"
        if images.num_classes == 1
        else "the loss of this batch no longer depends on the parameters: train for fewer steps or use another model"
    )
    return f"the undefended gradient is exactly zero, so nothing can leak from it: {cause}"


class Stopwatch:
    """Wall clock by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the seconds the body takes, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start
