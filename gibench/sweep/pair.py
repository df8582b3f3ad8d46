"""Runs jobs in a pair of worker processes: one holds the truth, and one attacks and is told nothing of it.

Whatever they do ends as the job's own row; what they leave changed ends with them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any, BinaryIO

from gibench.cell import Cell
from gibench.deadline import grace
from gibench.exchange import Answer, Place, unpacked_result
from gibench.job import Job, Progress
from gibench.outcome import OVERRAN, Facts, Outcome, Task
from gibench.result import Result, StoredRow, without_score
from gibench.sweep.workers import Worker, WorkerError

PATIENCE = 60.0  # seconds more than the attack's that every stage has before its process is ended


class Pair:
    """Two workers, started when they are first needed."""

    def __init__(self, memory: int | None = None, gpu: str | None = None) -> None:
        """Say what they may take.

        Args:
            memory: bytes of each, at most.
            gpu: the one they see; none: whatever is there.
        """
        environment = dict(os.environ) | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        place = Place(os.getcwd(), list(sys.path), environment, memory)
        self._trusted, self._attacking = Worker(place), Worker(place)

    def quit(self) -> None:
        """End both for good; a job that is being run fails at once."""
        self._trusted.quit()
        self._attacking.quit()

    def run(self, job: Job, kind: type[StoredRow], progress: Progress) -> Result:
        """Run one job.

        Args:
            job: what is to be run.
            kind: of its row.
            progress: see `gibench.job.Job.run`.

        Raises:
            GibenchError: the scoring is not to be trusted, or a wrong request has come to light.
        """
        self._changed: list[str] = []
        result = self._run(job, kind, progress)
        if self._changed:
            return replace(result, provenance={**result.provenance, "left_changed": self._changed})
        return result

    def _run(self, job: Job, kind: type[StoredRow], progress: Progress) -> Result:
        limit = None if job.timeout is None else job.timeout + grace(job.timeout) + PATIENCE
        doing = "preparing the cell, before any attack"
        try:
            if isinstance(job, Cell):
                facts, outcome = self._facts(job, limit, progress)
                head, body = self._trusted.ask(progress, limit, "prepare", job, facts)
                if "observation" in head:
                    doing = "scoring what was found"
                    with head["observation"] as observation:
                        outcome = outcome or self._attacked(job, observation, limit, progress)
                    head, body = self._trusted.ask(progress, limit, "score", *outcome)
            else:
                doing = "running it"
                head, body = self._trusted.ask(progress, limit, "run", job)
        except WorkerError as end:
            return without_score(job, kind, "timeout" if end.overran else "failed", f"{doing}: {end}")
        self._replace_if_changed(self._trusted, head)
        if "failed" in head:
            return without_score(job, kind, "failed", f"{doing}: {head['failed']}")
        try:
            return unpacked_result(kind, head, body)
        except Exception as error:  # plugins ran where it comes from
            return without_score(job, kind, "failed", f"{doing}: no result was sent, but {type(error).__name__}")

    def _facts(self, cell: Cell, limit: float | None, progress: Progress) -> tuple[Facts, Answer | None]:
        """What the attack says of itself; and, where it does not even do that, how the attack ends."""
        try:
            head, _ = self._attacking.ask(progress, limit, "facts", cell.attack)
            if "failed" not in head:
                return Facts(**{name: value for name, value in head.items() if name != "changes"}), None
            return Facts(), _failed(str(head["failed"]))
        except WorkerError as end:
            return Facts(), _ended(end)
        except TypeError:
            return Facts(), _failed("the attack's process sent no facts")

    def _attacked(self, cell: Cell, observation: BinaryIO, limit: float | None, progress: Progress) -> Answer:
        try:
            head, body = self._attacking.ask(progress, limit, "attack", Task.of(cell), file=observation)
        except WorkerError as end:
            return _ended(end)
        self._replace_if_changed(self._attacking, head)
        return _failed(str(head["failed"])) if "failed" in head else (head, body)

    def _replace_if_changed(self, worker: Worker, head: dict[str, Any]) -> None:
        """End a worker in which a job has left changed what the next one would meet."""
        if changes := head.pop("changes", None):
            self._changed += map(str, changes)
            worker.discard()


def _ended(end: WorkerError) -> Answer:
    return Outcome("timeout", OVERRAN).packed() if end.overran else _failed(f"the attack did not return: {end}")


def _failed(reason: str) -> Answer:
    return Outcome("failed", reason).packed()
