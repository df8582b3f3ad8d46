"""Where jobs are run: in this process, or in worker processes, several at a time if that is wanted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from gibench.job import Job, Progress
from gibench.result import Result, StoredRow

if TYPE_CHECKING:
    from gibench.sweep.pair import Pair

Numbered = tuple[int, Job]
POLL = 0.2  # seconds between looks at what other processes are running


class Executor(Protocol):
    """Runs jobs."""

    def results(
        self, jobs: Iterator[Numbered | None], kind: type[StoredRow], progress: Progress
    ) -> Iterator[tuple[int, Result]]:
        """The number and result of each job as it is done; what they run in ends with the iteration.

        Args:
            jobs: with their numbers; the next is taken when there is a place for it. None: there is none as yet.
            kind: of their rows.
            progress: is told what they are doing, also from other threads.
        """


class Local:
    """One after the other in this process, which what they do may change or end: for those who look for mistakes."""

    def results(
        self, jobs: Iterator[Numbered | None], kind: type[StoredRow], progress: Progress
    ) -> Iterator[tuple[int, Result]]:
        """See `Executor`."""
        for each in jobs:
            if each is None:
                time.sleep(POLL)
            else:
                yield each[0], beside(each[1].run(progress), 1)


class Processes:
    """In worker processes, which cost their own job whatever befalls them."""

    def __init__(self, count: int = 1, memory: int | None = None) -> None:
        """Start nothing yet.

        Args:
            count: jobs at a time, each in a pair of workers.
            memory: bytes of each worker, at most.
        """
        self._count, self._memory = count, memory

    def results(
        self, jobs: Iterator[Numbered | None], kind: type[StoredRow], progress: Progress
    ) -> Iterator[tuple[int, Result]]:
        """See `Executor`. At the end, also one by Ctrl-C, all workers are killed."""
        from gibench.sweep.pair import Pair

        gpus = _gpus()
        places = (gpus[number % len(gpus)] if gpus else None for number in range(self._count))
        pairs = [Pair(self._memory, gpu) for gpu in places]
        free: SimpleQueue[Pair] = SimpleQueue()
        for pair in pairs:
            free.put(pair)

        def run(number: int, job: Job) -> tuple[int, Result]:
            pair = free.get()
            try:
                return number, beside(pair.run(job, kind, progress), self._count)
            finally:
                free.put(pair)

        running: set[Future[tuple[int, Result]]] = set()
        with ThreadPoolExecutor(self._count) as threads, _quitting(pairs):
            more = True
            while more or running:
                idle = False
                while more and not idle and len(running) < self._count:
                    each = next(jobs, _END)
                    more, idle = each is not _END, each is None
                    if isinstance(each, tuple):
                        running.add(threads.submit(run, *each))
                if idle and not running:
                    time.sleep(POLL)
                done, running = wait(running, POLL if idle else None, FIRST_COMPLETED)
                yield from (each.result() for each in done)


_END = object()  # of jobs


@contextmanager
def _quitting(pairs: Sequence[Pair]) -> Iterator[None]:
    try:
        yield
    finally:
        for pair in pairs:
            pair.quit()


def beside(result: Result, workers: int) -> Result:
    """The same, with how many jobs could run at a time, on which its seconds depend."""
    return replace(result, row=replace(result.row, workers=workers))


def _gpus() -> list[str]:
    """The GPUs to share out, as the driver names them, where there are several: a worker finds its own as `cuda:0`."""
    import torch

    count = torch.cuda.device_count()  # of those that are named, those up to the first that is not there
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else list(map(str, range(count)))
    return names[:count] if count > 1 else []
