"""Runs jobs one after the other; every finished one is stored at once, and what is stored is not run again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import shorten
from typing import Any, Literal, Protocol

from gibench.job import Job
from gibench.result import StoredRow
from gibench.sweep.request import Request
from gibench.tracking import Store


class Listener(Protocol):
    """Is told how a grid gets on."""

    def started(self, number: int, job: Job) -> None:
        """The job with this number, from 1, begins."""

    def working(self, message: str, fraction: float | None = None) -> None:
        """What the job is doing, and the share done if known."""

    def finished(self, number: int, row: StoredRow, stored_before: bool) -> None:
        """The job is stored, just now or by an earlier call."""


def prepare(requests: Iterable[Request]) -> list[Job]:
    """The jobs that are asked for, each once and known to be possible.

    Raises:
        UsageError: something in a request is wrong, or the data for a job cannot be had.
    """
    jobs = list(dict.fromkeys(job for request in requests for job in request.jobs()))
    for job in jobs:
        job.check()
    return jobs


def run_jobs(
    jobs: Sequence[Job], store: Store[Any], request: Request, listener: Listener, force: bool = False
) -> list[StoredRow]:
    """Run what is not stored yet under one parent run; the stored row of every job, in order.

    Ctrl-C keeps what is stored: the parent run is closed as KILLED and the interruption goes on.

    Args:
        jobs: from `prepare`.
        store: where they are looked up and kept.
        request: what they were made of, as the parent run's parameters.
        listener: is told of each.
        force: run finished jobs again.
    """
    known: dict[str, StoredRow] = {} if force else {row.key: row for row in store.rows() if row.finished}
    rows: list[StoredRow] = []
    parent: str | None = None
    ended: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        for number, job in enumerate(jobs, start=1):
            if row := known.get(job.key):
                rows.append(row)
                listener.finished(number, row, stored_before=True)
                continue
            parent = parent or store.open_grid(getattr(request, "name", None) or "grid", _axes(request))
            listener.started(number, job)
            rows.append(store.save(job.run(listener.working), parent))
            listener.finished(number, rows[-1], stored_before=False)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        if parent:
            store.close_grid(parent, ended)
    return rows


def _axes(request: Request) -> dict[str, str]:
    """What varies, for the parent run; MLflow refuses long texts."""
    settings = request.model_dump(exclude={"name", "tracking_uri", "experiment"}, exclude_none=True)
    return {key: shorten(str(value), 500, placeholder=" ...") for key, value in settings.items() if value}
