"""The inside of a worker process: does one thing after the other that it is told to, and says what is left of each.

A worker either prepares and scores, and holds the truth, or attacks, and is told nothing of it. Answers are JSON and
tensors: reading one runs no code of whoever made it.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import cloudpickle
import torch
import torch._dynamo  # what the first gradient and the first optimizer would import
from tqdm import tqdm

from gibench import fingerprint, stages
from gibench.cell import Cell
from gibench.errors import GibenchError, UsageError
from gibench.exchange import Answer, Place, Shown, packed_result, receive_file, send_file
from gibench.job import Job
from gibench.jsonable import jsonable
from gibench.observation import Observation
from gibench.outcome import Facts, Outcome, Task

_BETWEEN = 0.1  # seconds between two words of progress: each takes time from what is timed
_LONGEST = 200  # characters of one
_GRIDS = ("score",)  # what fails there is no single cell's failure
_CODE = fingerprint.Code()  # as it is before any plugin is imported: workers are forks of the process that holds this


def serve(connection: Connection, place: Place) -> None:
    """Do what is asked until nobody is left to ask: the whole of a worker's life."""
    try:
        _settle(place)
        requests: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
        worker, state = _Worker(connection), fingerprint.State()
        process, line = os.getpid(), os.fstat(connection.fileno())
        while True:
            name, arguments = requests.get()
            head, body = worker.answer(name, arguments)
            if os.getpid() != process or not os.path.samestat(os.fstat(connection.fileno()), line):
                break  # a fork that a plugin has made and let go on, or files that it has closed
            head["changes"] = state.changes() + _CODE.changes()
            worker.send(_encoded(head), body)
    finally:
        os._exit(1)  # whatever plugins have left to be done at the end


def _encoded(head: dict[str, Any]) -> bytes:
    try:
        return json.dumps(head, allow_nan=False).encode()
    except Exception as error:
        return json.dumps({"failed": stages.text_of(error), "changes": head["changes"]}).encode()


def _settle(place: Place) -> None:
    """Be a process of one's own, where nothing is written on standard output, which is for rows."""
    os.setsid()  # what ends it can so end what it starts, too
    gc.freeze()  # the libraries, so that looking for what attacks leave does not look through these
    tqdm.monitor_interval = 0  # a progress bar leaves no thread
    tqdm.set_lock(threading.RLock())  # and no semaphore of the system
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    with suppress(OSError):  # where memory runs out, this is what the system is to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.chdir(place.folder)
    sys.path[:] = place.path
    os.environ.clear()
    os.environ.update(place.environment)
    if place.memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (place.memory, place.memory))


def _listen(connection: Connection, requests: queue.SimpleQueue[Any]) -> None:
    """Take requests; once nobody is there any more, end this process and all that it has started."""
    try:
        while True:
            name, arguments, with_file = pickle.loads(connection.recv_bytes())
            file = [receive_file(connection)] if with_file else []
            requests.put((name, (*arguments, *file)))
    except BaseException:
        os.killpg(os.getpgrp(), signal.SIGKILL)


class _Worker:
    """What can be asked for, a method each."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._told = 0.0
        self._preparation: stages.Preparation | None = None

    def answer(self, name: str, arguments: tuple[Any, ...]) -> Answer | Shown:
        """What one of the methods below gives, whatever happens in it."""
        try:
            found: Answer | Shown = getattr(self, name)(*arguments)
            return found
        except BaseException as error:
            if isinstance(error, GibenchError) and name in _GRIDS:
                return {"error": stages.text_of(error), "usage": isinstance(error, UsageError)}, b""
            return {"failed": stages.text_of(error)}, b""

    def send(self, *messages: bytes | BinaryIO) -> None:
        """Send them together; plugins may have threads that tell of progress."""
        with self._lock:
            for message in messages:
                if isinstance(message, bytes):
                    self._connection.send_bytes(message)
                else:
                    send_file(self._connection, message)

    def facts(self, attack: str) -> Answer:
        return jsonable(asdict(stages.facts_of(attack))), b""

    def attack(self, task: Task, file: BinaryIO) -> Answer:
        packed = stages.attack(task, _unpacked(file), self._progress).packed()
        gc.collect()  # a traced model is held by a cycle, and may be as large as the memory that the next one needs
        return packed

    def prepare(self, cell: Cell, facts: Facts) -> Answer | Shown:
        self._preparation = stages.Preparation(cell, facts, self._progress)
        observation = self._preparation.observe()
        if observation is None:
            return packed_result(self._preparation.result())
        return {"observation": True}, _packed(observation)

    def score(self, head: dict[str, Any], body: bytes) -> Answer:
        assert self._preparation is not None  # that is what is scored
        try:
            outcome = Outcome.unpacked(head, body)
        except Exception as error:
            outcome = Outcome("failed", f"what the attack's process sent is no outcome: {stages.text_of(error)}")
        return packed_result(self._preparation.result(outcome))

    def run(self, job: Job) -> Answer:
        return packed_result(job.run(self._progress))

    def _progress(self, message: str, fraction: float | None = None) -> None:
        if time.monotonic() - self._told < _BETWEEN:
            return
        self._told = time.monotonic()
        told = jsonable([str(message)[:_LONGEST], None if fraction is None else float(fraction)])
        self.send(json.dumps({"progress": told}).encode())


def _packed(observation: Observation) -> BinaryIO:
    """With the code of models that no module holds, and without what is not the observation's.

    In a file without a name, in memory where the system has such files: what is handed on is no copy, and it is gone
    once nobody has it open.
    """
    in_memory = hasattr(os, "memfd_create")
    file = os.fdopen(os.memfd_create("observation"), "w+b") if in_memory else TemporaryFile()  # noqa: SIM115
    torch.save(observation, file, pickle_module=cloudpickle)
    file.seek(0)
    return file


def _unpacked(file: BinaryIO) -> Observation:
    with file:
        found: Observation = torch.load(file, weights_only=False)
    return found
