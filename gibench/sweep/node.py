"""What a Ray cluster runs on its nodes. Ray's own process imports nothing heavy: a process beside it runs the jobs."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gibench.result import Result, StoredRow
    from gibench.sweep.pair import Pair


def run_here(job: Any, kind: type[StoredRow], memory: int | None) -> Result:
    """Run one job on the node that this is called on; see `gibench.sweep.pair.Pair.run`."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    room = next(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here)
    at_a_time = max(1, int(room // job.threads))
    return _beside(os.environ.get("CUDA_VISIBLE_DEVICES")).submit(_run, job, kind, memory, at_a_time).result()


@lru_cache(maxsize=1)
def _beside(gpu: str | None) -> ProcessPoolExecutor:
    """The process beside Ray's, which sees the GPU of that name."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _run(job: Any, kind: type[StoredRow], memory: int | None, at_a_time: int) -> Result:
    from gibench.sweep.executors import beside

    return beside(_pair(memory).run(job, kind, _silent), at_a_time)


def _silent(message: str, fraction: float | None = None) -> None:
    """Nobody is told how the job gets on."""


@lru_cache(maxsize=1)
def _pair(memory: int | None) -> Pair:
    from gibench.sweep.pair import Pair

    return Pair(memory)
