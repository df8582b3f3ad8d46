"""How jobs are run: how many at a time, in what, and which of those that an earlier call left unfinished."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gibench.errors import UsageError
from gibench.job import Job

if TYPE_CHECKING:
    from gibench.sweep.executors import Executor

_MOST_JOBS = 1024


class Retry(StrEnum):
    """What an earlier call left without a final status that is run again."""

    ALL = "all"
    FAILED = "failed"
    TIMEOUT = "timeout"
    NONE = "none"


class Where(StrEnum):
    """What jobs are run in."""

    PROCESS = "process"
    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True)
class How:
    """What the options say."""

    jobs: str = "1"
    memory: float | None = None
    retry: Retry = Retry.ALL
    where: Where = Where.PROCESS
    ray_address: str | None = None

    @classmethod
    def of(
        cls,
        jobs: str,
        memory: float | None = None,
        retry: Retry = Retry.ALL,
        executor: str = Where.PROCESS,
        ray_address: str | None = None,
    ) -> How:
        """Read them.

        Raises:
            UsageError: a number that makes no sense, or no such executor.
        """
        if jobs != "auto" and not (
            jobs.isascii() and jobs.isdigit() and len(jobs) < 5 and 1 <= int(jobs) <= _MOST_JOBS
        ):
            raise UsageError(f"jobs={jobs!r} is refused: give a number from 1 to {_MOST_JOBS}, or auto")
        if memory is not None and not (0 < memory < math.inf):
            raise UsageError(f"memory={memory!r} is refused: give the gigabytes that a process may take")
        if executor not in list(Where):
            raise UsageError(f"executor={executor!r} is refused: there are {', '.join(Where)}")
        return cls(jobs, memory, retry, Where(executor), ray_address)

    @property
    def apart(self) -> bool:
        """Whether jobs run in processes of their own, which Windows has no way to start so fast."""
        return self.where is not Where.LOCAL and "forkserver" in multiprocessing.get_all_start_methods()

    @contextmanager
    def sharing_threads(self) -> Iterator[None]:
        """Let `threads=auto` mean, in the body, a job's share of the processors."""
        if self.jobs == "1":
            yield
            return
        from gibench.device import threads

        with threads(1 if self.jobs == "auto" else max(1, _cores() // int(self.jobs))):
            yield

    @property
    def retried(self) -> frozenset[str]:
        """The statuses of what is run again."""
        from gibench.result import UNFINISHED

        chosen = {Retry.ALL: UNFINISHED, Retry.NONE: frozenset[str]()}
        return chosen.get(self.retry, frozenset({self.retry.value}))

    def run_again(self, force: bool) -> frozenset[str]:
        """The same, where finished jobs may be wanted again too."""
        from gibench.result import STATUSES

        return frozenset(STATUSES) if force else self.retried

    def executor(self, jobs: Sequence[Job]) -> Executor:
        """What runs such jobs."""
        from gibench.sweep.executors import Local, Processes

        if not self.apart:
            return Local()
        memory = None if self.memory is None else int(self.memory * 1e9)
        if self.where is Where.RAY:
            from gibench.sweep.cluster import Cluster

            return Cluster(self.ray_address, memory)
        count = _as_many_as_fit(jobs) if self.jobs == "auto" else int(self.jobs)
        return Processes(count, memory)


def _as_many_as_fit(jobs: Sequence[Any]) -> int:
    import torch

    if any(job.device == "cuda" for job in jobs):
        return max(1, torch.cuda.device_count())
    return min(_MOST_JOBS, max(1, _cores() // max((job.threads for job in jobs), default=1)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
