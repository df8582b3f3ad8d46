"""The outside of a worker process: it is asked for one thing after the other, and replaced once it has ended.

Workers are forks of a process that has imported the libraries and done nothing else: a new one costs no imports.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, BinaryIO

from gibench.errors import GibenchError, UsageError
from gibench.exchange import Answer, Place, receive_file, send_file
from gibench.job import Progress

_MOST_BYTES = 2**26, 2**36  # of an answer's two parts; what claims to be longer is no answer
_BUFFER = 2**22  # bytes
_STARTING = threading.Lock()


class WorkerError(Exception):
    """A worker is no more; the message says how it ended."""

    def __init__(self, how: str, overran: bool = False) -> None:
        super().__init__(how)
        self.overran = overran


class Worker:
    """One process, started when it is first asked for something and replaced once it has ended."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: Any = None
        self._connection: Connection | None = None
        self._overran = self._closed = False

    def ask(
        self, progress: Progress, limit: float | None, name: str, *arguments: Any, file: BinaryIO | None = None
    ) -> Answer:
        """What the worker answers; see `gibench.worker`. An observation is an open file in the head.

        Args:
            progress: is told what the worker tells meanwhile.
            limit: seconds until it is ended.
            name, arguments: of what it is asked for.
            file: its last argument, closed here once it is sent.

        Raises:
            WorkerError: the worker has ended in place of an answer.
            GibenchError: what was asked for cannot go on, nor can the grid.
        """
        connection = self._started()
        timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), self._overrun) if limit is not None else None
        try:
            if timer:
                timer.daemon = True
                timer.start()
            request = name, arguments, file is not None
            connection.send_bytes(pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL))
            if file is not None:
                send_file(connection, file)
            head = self._head(connection, progress)
            if "observation" in head:
                head["observation"], body = receive_file(connection), b""
            else:
                body = connection.recv_bytes(_MOST_BYTES[1])
        except (OSError, EOFError, ValueError) as error:
            raise self._end(error) from None
        finally:
            if timer:
                timer.cancel()
        if "error" in head:
            raise (UsageError if head.get("usage") else GibenchError)(str(head["error"]))
        return head, body

    def close(self) -> None:
        """End the process, if there is one, and all that it has started; the next question starts another."""
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        _end_group(process.pid)
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)  # wakes who waits for an answer, should a fork of it still hold the line

    def quit(self) -> None:
        """The same for good."""
        self._closed = True
        self.close()

    def _started(self) -> Connection:
        if self._connection is not None and _is_hung_up(self._connection):
            self.discard()  # it was ended since its last answer, which is no fault of what is asked for now
        if self._connection is None:
            if self._closed:
                raise WorkerError("it was not started any more")
            self._process, self._connection = _start(self._place)
            self._overran = False
        return self._connection

    @staticmethod
    def _head(connection: Connection, progress: Progress) -> dict[str, Any]:
        """The next message that is more than a word of progress."""
        while True:
            head = json.loads(connection.recv_bytes(_MOST_BYTES[0]))
            if not isinstance(head, dict):
                raise ValueError("no answer")
            if "progress" not in head:
                return head
            message, fraction = head["progress"]
            progress(str(message), fraction if isinstance(fraction, float | int) else None)

    def _overrun(self) -> None:
        self._overran = True
        self.close()

    def _end(self, error: Exception) -> WorkerError:
        """End what no answer came from; how it had ended."""
        process = self._process
        if not isinstance(error, ValueError):  # it may be about to end by itself
            process.join(1)
        code = process.exitcode
        self.discard()
        if self._overran:
            return WorkerError("it ran on past its deadline and was ended: raise --timeout", overran=True)
        return WorkerError(_how_it_ended(code))

    def discard(self) -> None:
        """End the process and forget it."""
        if self._process is None or self._connection is None:
            return
        self.close()
        self._process.join()
        self._process.close()
        self._connection.close()
        self._process = self._connection = None


def _is_hung_up(connection: Connection) -> bool:
    """Whether nobody is at the other end of the line any more."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        try:
            return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "its process sent what is no answer, or closed the line, and was ended"
    if code >= 0:
        return f"its process ended with exit code {code} in place of a result"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    return f"its process was ended by signal {-code}"


def _end_group(process: int) -> None:
    """End a process and those that it has started."""
    for end in (os.killpg, os.kill):  # it may not lead a group yet
        with suppress(ProcessLookupError, PermissionError):
            end(process, signal.SIGKILL)


def _start(place: Place) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("forkserver")
    with _STARTING, _no_main():
        context.set_forkserver_preload([__name__, "gibench.worker"])
        ours, theirs = context.Pipe()
        for each in (ours, theirs):
            with socket.socket(fileno=os.dup(each.fileno())) as line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)  # models are large
        process = context.Process(target=_serve, args=(theirs, place), name="gibench-worker")
        process.start()
    theirs.close()
    return process, ours


def _serve(connection: Connection, place: Place) -> None:
    """In the new process, which alone needs what is imported for it."""
    from gibench import worker

    worker.serve(connection, place)


@contextmanager
def _no_main() -> Iterator[None]:
    """Let the child not run the program's main module again, as children of `multiprocessing` do."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
