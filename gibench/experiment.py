"""One cell of the benchmark, from its spec to its result: a pure function of the spec and its seed."""

from __future__ import annotations

import copy
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from gibench import batches, chain, client, foreign, provenance, seeds, training
from gibench.attack import Attack, Context, Reconstruction, non_finite
from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.datasets.base import Dataset, Images, Split
from gibench.deadline import DeadlinePassed, grace, hard_stop
from gibench.defense import Defense
from gibench.device import threads
from gibench.errors import GibenchError, NotApplicableError, UsageError
from gibench.job import Progress
from gibench.jsonable import jsonable
from gibench.models.base import Model
from gibench.observation import Observation
from gibench.registry import create
from gibench.result import Result, Row, Status
from gibench.scoring import grid_png, score
from gibench.spec import parse_chain
from gibench.text import one_line, text_of
from gibench.threat_model import ThreatModel

ATTACKING = "attacking"  # what a trial is doing once failures are the attack's


def check(cell: Cell) -> None:
    """Find out whether the cell can be prepared, so that a wrong request fails before anything runs.

    Raises:
        UsageError: the data cannot be had or are too few, or the model or a defense cannot take them.
    """
    draw(cell)
    chain.context_of(defenses(cell), torch.Generator(), cell.batch_size, len(_attacked(cell)))
    _check_model(cell.dataset, cell.model)


def run_cell(cell: Cell, progress: Progress) -> Result:
    """Run one cell. What fails in it becomes its status and reason (rule E9).

    Args:
        cell: as `gibench.cell.expand` makes it.
        progress: told what is being done, and the share done if known.

    Raises:
        UsageError: see `check`.
        GibenchError: the scoring is not to be trusted (LPIPS fails its self-test).
    """
    with threads(cell.threads):
        return _run(cell, progress)


def _run(cell: Cell, progress: Progress) -> Result:
    watch = Stopwatch()
    with watch.stage("data"):
        truth = draw(cell)
    trial = _Trial(cell, truth, watch, progress)
    try:
        trial.run()
    except NotApplicableError as refusal:
        trial.ended("skipped", refusal)
    except DeadlinePassed:
        trial.ended("timeout", "the attack ran on past its deadline and was stopped: raise --timeout")
        trial.row["runtime_s"] = watch.seconds["attack"]
    except (Exception, SystemExit) as error:  # whatever fails in a cell is that cell's result
        trial.failed(error)
        trial.provenance["traceback"] = traceback.format_exc()
    return trial.result()


class _Trial:
    """One run of a cell: its row as far as it is known."""

    def __init__(self, cell: Cell, truth: Split, watch: Stopwatch, progress: Progress) -> None:
        self.cell, self.truth, self.watch, self.progress = cell, truth, watch, progress
        self.device = torch.device(cell.device)
        self.sent: torch.dtype = getattr(torch, cell.dtype)
        self.attack = cast(Attack, create("attack", cell.attack))
        self.provenance = provenance.of(cell)
        self.reconstruction: Reconstruction | None = None
        self.row: dict[str, Any] = {name: getattr(cell, name) for name in axes_of(Cell)}  # what is known of it so far
        self.doing = "preparing the cell"
        self.notes: dict[str, str] = {}  # of the harness, beside the attack's diagnostics
        self.row |= {
            "cell": cell.key,
            "duplicate_labels": len(truth) - len(set(truth.labels.tolist())),
            "adaptive": self.attack.adaptive,
            "oracle": self.attack.oracle,
            "control": self.attack.control,
            "budget": self.attack.budget,
            "hardware": self.provenance["hardware"],
            "split_size": len(_attacked(cell)),
            "n_true": len(truth),
        }

    def run(self) -> None:
        """Prepare the model, observe its update and attack it."""
        cell, row = self.cell, self.row
        images = load(cell.dataset)
        with self.watch.stage("model"):
            self._begin("preparing the model")
            dtype = torch.promote_types(self.sent, torch.float32)  # what half precision is sent of
            state = (cell.dataset, cell.model, cell.train_steps, cell.seed, cell.device, cell.threads, dtype)
            model, row["model_accuracy"] = _model(*state)
            row["training_shares"] = images.training_shares if cell.train_steps else None
        with self.watch.stage("client"), seeds.isolated(cell.seed, "defense"):
            self._begin("computing the update")
            release = self._observe(model, images, self.truth)
            observation = release.observation
            if self.attack.foreign:
                clients = chain.client_count(defenses(cell))
                generator = seeds.generator(cell.seed, "data")
                other, self.notes = foreign.draw(images, cell.batch_size, cell.labels, clients, generator)
                observation = replace(self._observe(model, images, other).observation, foreign=True)
        guarantee = release.guarantee
        row |= guarantee.columns()
        row["grad_norm"] = release.grad_norm
        self.provenance["defense_costs"] = dict(guarantee.costs)
        if release.grad_norm == 0:
            raise NotApplicableError(_why_zero(images))
        update = release.observation.update
        if reason := non_finite(update):
            if update.kind == "gradient":
                self.ended("failed", reason)
            else:
                self.ended("diverged", "the clients' training left the finite numbers: lower their learning rate")
            return
        self._attack(observation)

    def _observe(self, model: nn.Module, images: Images, batch: Split) -> client.Release:
        cell = self.cell
        return client.observe(
            model,
            images,
            batch,
            defenses(cell),
            ThreatModel.parse(cell.knows),
            seeds.generator(cell.seed, "defense", self.device),
            cell.batch_size,
            len(_attacked(cell)),
            self.sent,
        )

    def _attack(self, observation: Observation) -> None:
        timeout = self.cell.timeout
        limit = None if timeout is None else timeout + grace(timeout)
        generator = seeds.generator(self.cell.seed, "attack", self.device)
        self.doing = ATTACKING
        with self.watch.stage("attack"), seeds.isolated(self.cell.seed, "attack"), hard_stop(limit):
            deadline = None if timeout is None else time.monotonic() + timeout
            run = self.attack(observation, Context(generator, self.device, deadline, self.progress))
        self.ended(run.status, run.reason)
        self.row |= {"runtime_s": run.runtime_s, "peak_memory_mb": run.peak_memory_mb}
        self.reconstruction = run.reconstruction

    def _begin(self, what: str) -> None:
        self.doing = what
        self.progress(what, None)

    def failed(self, error: BaseException) -> None:
        """Note what was raised, and that no attack is to blame if none had begun."""
        text = text_of(error) if isinstance(error, GibenchError) else f"{type(error).__name__}: {text_of(error)}"
        self.ended("failed", text if self.doing == ATTACKING else f"{self.doing}, before any attack: {text}")

    def ended(self, status: Status, reason: object) -> None:
        """Note how it ended, the reason on one line, whatever a plugin gave as one."""
        self.row |= {"status": status, "reason": one_line(reason) or None}

    def result(self) -> Result:
        """Score what was found, and mid-grey if the attack failed or diverged (rule E9).

        What was skipped, and what failed before the attack began, has no score: it tells nothing of the attack.
        """
        images = grid = None
        if self.doing == ATTACKING and self.row["status"] != "skipped":
            with self.watch.stage("scoring"):
                self.progress("scoring", None)
                counted = self.reconstruction if self.row["status"] in ("ok", "budget_exhausted") else None
                scored = score(self.truth.images, counted, self.truth.labels)
                self.row |= scored.summary
                self.row["n_reconstructed"] = len(self.reconstruction.images) if self.reconstruction else 0
                images, grid = scored.images, grid_png(self.truth.images, scored)
        diagnostics = {**jsonable(self.reconstruction.diagnostics if self.reconstruction else {}), **self.notes}
        return Result(
            Row(**jsonable(self.row)),
            images,
            grid,
            diagnostics,
            jsonable(self.provenance),
            self.watch.seconds,
        )


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


@lru_cache(maxsize=4)
def load(dataset: str) -> Images:
    """The images of a data set, kept for the cells that follow: a copy that the plugin cannot write to any more."""
    with seeds.isolated(0, "data"):  # no cell's seed: the images are the same for all (rule E18)
        return copy.deepcopy(cast(Dataset, create("dataset", dataset)).load())


def draw(cell: Cell) -> Split:
    """The private images of all clients: the truth.

    Raises:
        UsageError: the data cannot be had, or hold no such batch.
    """
    clients = chain.client_count(defenses(cell))
    generator = seeds.generator(cell.seed, "data")
    return batches.draw(load(cell.dataset), cell.batch_size, cell.labels, clients, generator, cell.split)


def _attacked(cell: Cell) -> Split:
    """The split that the cell's batches are of."""
    found: Split = getattr(load(cell.dataset), cell.split)
    return found


def defenses(cell: Cell) -> list[Defense]:
    """The cell's chain of defenses, in canonical order."""
    return [cast(Defense, create("defense", spec)) for spec in parse_chain(cell.defense)]


@lru_cache
def _check_model(dataset: str, model: str) -> None:
    """Once for all cells with the two."""
    with seeds.isolated(0, "model"):
        build(dataset, model)


def build(dataset: str, model: str) -> nn.Module:
    """A network of its own, also where the plugin gives the same one each time.

    Raises:
        UsageError: it cannot take such images, or is larger than the memory.
    """
    images = load(dataset)
    try:
        return copy.deepcopy(cast(Model, create("model", model)).build(images.image_shape, images.num_classes))
    except (RuntimeError, MemoryError) as error:  # torch's words for what does not fit go on for lines
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"the model {model} cannot be built ({cause}): use a smaller one") from error


@lru_cache(maxsize=4)
def _model(
    dataset: str, model: str, train_steps: int, seed: int, device: str, threads: int, dtype: torch.dtype
) -> tuple[nn.Module, float]:
    """The network and its accuracy on the tuning split, kept for the cells that differ in defense or attack only."""
    images = load(dataset)
    with seeds.isolated(seed, "model"):
        network = build(dataset, model).to(device, dtype)
        if train_steps:  # making an optimizer alone takes seconds of imports
            training.train(network, images, train_steps, torch.default_generator)
        return network, training.accuracy(network, images, images.tuning)
