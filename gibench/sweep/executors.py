"""Where jobs are run: in this process, or in worker processes, several at a time if that is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from queue import SimpleQueue
from typing import Protocol

from gibench.job import Job
from gibench.result import Result, Row, StoredRow
from gibench.sweep.pair import Pair

Numbered = tuple[int, Job]


class Watcher(Protocol):
    """Is told how jobs get on, also from other threads."""

    def started(self, number: int, job: Job) -> None:
        """The job with this number, from 1, begins."""

    def working(self, message: str, fraction: float | None = None) -> None:
        """What a job is doing, and the share done if known."""


class Executor(Protocol):
    """Runs jobs."""

    def results(
        self, jobs: Sequence[Numbered], kind: type[StoredRow], watcher: Watcher
    ) -> Iterator[tuple[int, Result]]:
        """The number and result of each job as it is done; what they run in ends with the iteration.

        Args:
            jobs: with their numbers, from 1.
            kind: of their rows.
            watcher: is told when each is begun.
        """


class Local:
    """One after the other in this process, which what they do may change or end: for those who look for mistakes."""

    def results(
        self, jobs: Sequence[Numbered], kind: type[StoredRow], watcher: Watcher
    ) -> Iterator[tuple[int, Result]]:
        """See `Executor`."""
        for number, job in jobs:
            watcher.started(number, job)
            yield number, _beside(job.run(watcher.working), 1)


class Processes:
    """In worker processes, which cost their own job whatever befalls them."""

    def __init__(self, count: int = 1, memory: int | None = None) -> None:
        """Start nothing yet.

        Args:
            count: jobs at a time, each in a pair of workers, which share the processors.
            memory: bytes of each worker, at most.
        """
        self._count, self._memory = count, memory

    def results(
        self, jobs: Sequence[Numbered], kind: type[StoredRow], watcher: Watcher
    ) -> Iterator[tuple[int, Result]]:
        """See `Executor`. At the end, also one by Ctrl-C, all workers are killed."""
        count = min(self._count, len(jobs))
        gpus = _gpus()
        pairs = [Pair(self._memory, gpus[number % len(gpus)] if gpus else None) for number in range(count)]
        free: SimpleQueue[Pair] = SimpleQueue()
        for pair in pairs:
            free.put(pair)

        def run(number: int, job: Job) -> tuple[int, Result]:
            pair = free.get()
            try:
                watcher.started(number, job)
                return number, _beside(pair.run(job, kind, watcher.working), count)
            finally:
                free.put(pair)

        with ThreadPoolExecutor(max(1, count)) as threads, _quitting(pairs):
            waiting, running = iter(jobs), set[Future[tuple[int, Result]]]()
            while True:
                running |= {threads.submit(run, *each) for each in islice(waiting, count - len(running))}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)


@contextmanager
def _quitting(pairs: Sequence[Pair]) -> Iterator[None]:
    try:
        yield
    finally:
        for pair in pairs:
            pair.quit()


def _beside(result: Result, workers: int) -> Result:
    """The same, with how many jobs ran at a time, which its seconds depend on."""
    return replace(result, row=replace(result.row, workers=workers)) if isinstance(result.row, Row) else result


def _gpus() -> list[str]:
    """The GPUs to share out, as the driver names them, where there are several."""
    import torch

    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        names = visible.split(",")
    else:
        names = list(map(str, range(torch.cuda.device_count())))
    return names if len(names) > 1 else []
