"""One cell of the benchmark, from its spec to its result: a pure function of the spec and its seed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from typing import cast

import torch
from torch import nn

from gibench import batches, chain, client, foreign, provenance, seeds, training
from gibench.attack import Attack, Context, Reconstruction
from gibench.cell import Cell
from gibench.datasets.base import Dataset, Images, Split
from gibench.deadline import DeadlinePassed, grace, hard_stop
from gibench.defense import Defense
from gibench.errors import GibenchError, NotApplicableError
from gibench.jsonable import jsonable
from gibench.models.base import Model
from gibench.observation import Observation, ThreatModel
from gibench.registry import create
from gibench.result import COLUMNS, Result, Row, Status
from gibench.scoring import grid_png, score
from gibench.spec import parse_chain

Progress = Callable[[str, float | None], None]


def check(cell: Cell) -> None:
    """Find out whether the cell can be prepared, so that a wrong request fails before anything runs.

    Raises:
        UsageError: the data cannot be had or are too few, or the model or a defense cannot take them.
    """
    draw(cell)
    chain.context_of(defenses(cell), torch.Generator(), cell.batch_size, len(load(cell.dataset).private))
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
    watch = Stopwatch()
    with watch.stage("data"):
        truth = draw(cell)
    trial = _Trial(cell, truth, watch, progress)
    try:
        trial.run()
    except NotApplicableError as refusal:
        trial.ended("skipped", str(refusal))
    except DeadlinePassed:
        trial.ended("timeout", "the attack ran on past its deadline and was stopped: raise --timeout")
        trial.row["runtime_s"] = watch.seconds["attack"]
    except (Exception, SystemExit) as error:  # whatever fails in a cell is that cell's result
        trial.ended("failed", str(error) if isinstance(error, GibenchError) else f"{type(error).__name__}: {error}")
        trial.provenance["traceback"] = traceback.format_exc()
    return trial.result()


class _Trial:
    """One run of a cell: its row as far as it is known."""

    def __init__(self, cell: Cell, truth: Split, watch: Stopwatch, progress: Progress) -> None:
        self.cell, self.truth, self.watch, self.progress = cell, truth, watch, progress
        self.device = torch.device(cell.device)
        self.attack = cast(Attack, create("attack", cell.attack))
        self.provenance = provenance.of(cell)
        self.reconstruction: Reconstruction | None = None
        self.notes: dict[str, str] = {}  # of the harness, beside the attack's diagnostics
        settings = asdict(cell)
        self.row: Row = dict.fromkeys(COLUMNS) | {name: settings[name] for name in COLUMNS if name in settings}
        self.row |= {
            "cell": cell.key,
            "labels_policy": cell.labels,
            "threat_model": cell.knows,
            "duplicate_labels": len(truth) - len(set(truth.labels.tolist())),
            "adaptive": self.attack.adaptive,
            "oracle": self.attack.oracle,
            "hardware": self.provenance["hardware"],
            "n_true": len(truth),
        }

    def run(self) -> None:
        """Prepare the model, observe its update and attack it."""
        cell, row = self.cell, self.row
        images = load(cell.dataset)
        with self.watch.stage("model"):
            self.progress("preparing the model", None)
            model, row["model_accuracy"] = _model(
                cell.dataset, cell.model, cell.train_steps, cell.seed, cell.device, cell.dtype
            )
        with self.watch.stage("client"), seeds.isolated(cell.seed, "defense"):
            self.progress("computing the update", None)
            release = self._observe(model, images, self.truth)
            observation = release.observation
            if self.attack.foreign:
                clients = chain.client_count(defenses(cell))
                generator = seeds.generator(cell.seed, "data")
                other, self.notes = foreign.draw(images, cell.batch_size, cell.labels, clients, generator)
                observation = replace(self._observe(model, images, other).observation, foreign=True)
        guarantee = release.guarantee
        row |= {name: getattr(guarantee, name) for name in ("epsilon", "delta", "accountant", "sampling")}
        row["grad_norm"] = release.grad_norm
        self.provenance["defense_costs"] = dict(guarantee.costs)
        update = observation.update
        if update.kind == "weight_delta" and not all(bool(value.isfinite().all()) for value in update.tensors.values()):
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
            parse_chain(cell.defense),
        )

    def _attack(self, observation: Observation) -> None:
        timeout = self.cell.timeout
        limit = None if timeout is None else timeout + grace(timeout)
        generator = seeds.generator(self.cell.seed, "attack", self.device)
        with self.watch.stage("attack"), seeds.isolated(self.cell.seed, "attack"), hard_stop(limit):
            deadline = None if timeout is None else time.monotonic() + timeout
            run = self.attack(observation, Context(generator, self.device, deadline, self.progress))
        self.ended(run.status, run.reason)
        self.row |= {"runtime_s": run.runtime_s, "peak_memory_mb": run.peak_memory_mb}
        self.reconstruction = run.reconstruction

    def ended(self, status: Status, reason: str) -> None:
        """Note how it ended, the reason on one line."""
        self.row |= {"status": status, "reason": " ".join(reason.split()) or None}

    def result(self) -> Result:
        """Score what was found, and mid-grey if it failed or diverged (rule E9); what was skipped has no score."""
        images = grid = None
        if self.row["status"] != "skipped":
            with self.watch.stage("scoring"):
                self.progress("scoring", None)
                counted = self.reconstruction if self.row["status"] in ("ok", "budget_exhausted") else None
                scored = score(self.truth.images, counted, self.truth.labels)
                self.row |= scored.summary
                self.row["n_reconstructed"] = len(self.reconstruction.images) if self.reconstruction else 0
                images, grid = scored.images, grid_png(self.truth.images, scored)
        diagnostics = {**(self.reconstruction.diagnostics if self.reconstruction else {}), **self.notes}
        return Result(
            jsonable(self.row), images, grid, jsonable(diagnostics), jsonable(self.provenance), self.watch.seconds
        )


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
    """The images of a data set, kept for the cells that follow."""
    return cast(Dataset, create("dataset", dataset)).load()


def draw(cell: Cell) -> Split:
    """The private images of all clients: the truth.

    Raises:
        UsageError: the data cannot be had, or hold no such batch.
    """
    clients = chain.client_count(defenses(cell))
    generator = seeds.generator(cell.seed, "data")
    return batches.draw(load(cell.dataset), cell.batch_size, cell.labels, clients, generator)


def defenses(cell: Cell) -> list[Defense]:
    """The cell's chain of defenses, in canonical order."""
    return [cast(Defense, create("defense", spec)) for spec in parse_chain(cell.defense)]


@lru_cache
def _check_model(dataset: str, model: str) -> None:
    """Once for all cells with the two."""
    _build(dataset, model)


def _build(dataset: str, model: str) -> nn.Module:
    images = load(dataset)
    return cast(Model, create("model", model)).build(images.image_shape, images.num_classes)


@lru_cache(maxsize=4)
def _model(dataset: str, model: str, train_steps: int, seed: int, device: str, dtype: str) -> tuple[nn.Module, float]:
    """The network and its accuracy on the tuning split, kept for the cells that differ in defense or attack only."""
    images = load(dataset)
    with seeds.isolated(seed, "model"):
        network = _build(dataset, model).to(device, getattr(torch, dtype))
        if train_steps:  # making an optimizer alone takes seconds of imports
            training.train(network, images, train_steps, torch.default_generator)
        return network, training.accuracy(network, images, images.tuning)
