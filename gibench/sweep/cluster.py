"""Jobs as tasks of a Ray cluster: each in a pair of worker processes on a node that has room for it.

What a job names (plugins, folders of images) must be on every node.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from gibench.errors import GibenchError, UsageError
from gibench.job import Job, Progress
from gibench.result import Result, StoredRow, without_score
from gibench.sweep.executors import POLL, Numbered, beside
from gibench.sweep.pair import Pair

_RETRIES = 5  # of a job whose node or process is lost
_AHEAD = 2  # jobs that wait at the cluster for each that it has room for


class Cluster:
    """An `gibench.sweep.executors.Executor`."""

    def __init__(self, address: str | None = None, memory: int | None = None) -> None:
        """Connect to nothing yet.

        Args:
            address: of the cluster; none: `RAY_ADDRESS`, or a cluster of this machine alone, started for it.
            memory: bytes of each worker, at most; a job asks its node for two.
        """
        self._address, self._memory = address, memory

    def results(
        self, jobs: Iterator[Numbered | None], kind: type[StoredRow], progress: Progress
    ) -> Iterator[tuple[int, Result]]:
        """See `Executor`. A job that is lost with its node is run again on another.

        Raises:
            UsageError: Ray is not installed, or no cluster is there.
        """
        ray = _connected(self._address)
        waiting: dict[Any, tuple[int, Job]] = {}
        more = True
        try:
            while more or waiting:
                idle = False
                while more and not idle and len(waiting) < _AHEAD * max(1, ray.cluster_resources().get("CPU", 1)):
                    each = next(jobs, ())
                    more, idle = each != (), each is None
                    if each:
                        waiting[self._submitted(ray, each[1], kind)] = each
                if idle and not waiting:
                    time.sleep(POLL)
                done, _ = ray.wait(list(waiting), timeout=POLL if idle else None) if waiting else ([], [])
                progress(f"{len(waiting)} cells at the cluster", None)
                for task in done:
                    number, job = waiting.pop(task)
                    yield number, _got(ray, task, job, kind)
        finally:
            ray.shutdown()

    def _submitted(self, ray: Any, job: Any, kind: type[StoredRow]) -> Any:
        room = {"num_cpus": job.threads, "num_gpus": 1 if job.device == "cuda" else 0}
        if self._memory is not None:
            room["memory"] = 2 * self._memory
        task = ray.remote(_run).options(**room, max_retries=_RETRIES, name="gibench")
        return task.remote(job, kind, self._memory)


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'gibench[ray]', or use --executor process") from None
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, ignore_reinit_error=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"no Ray cluster is to be had ({cause}): see --ray-address") from error
    return ray


def _got(ray: Any, task: Any, job: Job, kind: type[StoredRow]) -> Result:
    try:
        found: Result = ray.get(task)
        return found
    except GibenchError:
        raise
    except ray.exceptions.RayError as error:
        cause = " ".join(str(error).split())
        return without_score(job, kind, "failed", f"the cluster lost it {_RETRIES + 1} times: {cause}")


def _run(job: Any, kind: type[StoredRow], memory: int | None) -> Result:
    """On a node: run one job."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    room = next(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here)
    pair = _pair(memory, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return beside(pair.run(job, kind, _silent), max(1, int(room // job.threads)))


def _silent(message: str, fraction: float | None = None) -> None:
    """Nobody is told how a job gets on that runs elsewhere."""


@lru_cache(maxsize=1)
def _pair(memory: int | None, gpu: str | None) -> Pair:
    """Of this process of Ray's, which gives it the same GPU as long as that has the same name."""
    return Pair(memory, gpu)
