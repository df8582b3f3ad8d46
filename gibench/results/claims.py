"""Claims with leases: of several processes that want to do one thing, one does it, and another if that one is gone.

A process is a *session*, a file that it touches as a sign of life. On one machine its process tells at once whether it
is alive; from another machine it counts as gone when it was not touched for `LEASE` seconds of the file system's own
clock. A claim is a file made exclusively, `NAME.0`; one whose session is gone is taken over by making `NAME.1`, and so
on, so that of two that take over one wins. On NFS exclusive creation is atomic, and `lookupcache=none` makes names that
another machine has made visible at once; without it a cell can be run twice, and one of the two results is kept.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from gibench.results.place import SESSIONS

LEASE = 120.0  # seconds without a sign of life after which a session on another machine is gone
_BEAT = 15.0  # seconds between signs of life
_SESSIONS: dict[tuple[Path, int], Session] = {}
_LOCK = threading.Lock()


class Session:
    """This process at work on a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = uuid.uuid4().hex
        self._file = folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({"machine": _machine(), "process": os.getpid(), "born": _born(os.getpid())}))
        self._owner = os.getpid()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="gibench-session", daemon=True).start()
        atexit.register(self.end)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._file)

    def end(self) -> None:
        """Give up what is claimed."""
        if os.getpid() == self._owner:  # not in a fork of it
            self._ended.set()
            with contextlib.suppress(OSError):
                self._file.unlink()

    def is_alive(self, name: str) -> bool:
        """Whether a session's process is there."""
        if name == self.name:
            return True
        return _is_alive(self._folder / name, self._age)

    def _age(self, file: Path) -> float:
        """Seconds since a sign of life, both times told by the file system, whose clock may be another machine's."""
        try:
            os.utime(self._file)
            return self._file.stat().st_mtime - file.stat().st_mtime
        except OSError:
            return 0.0


def _is_alive(file: Path, age: Callable[[Path], float]) -> bool:
    """Whether the process of a session's file is there."""
    try:
        other = json.loads(file.read_text())
        if other["machine"] == _machine():
            return bool(_born(other["process"]) == other["born"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is just being written, or was cut off then
    return age(file) < LEASE


def at_work(root: Path) -> int:
    """How many processes are at work on a results folder; nothing is made, so of other machines by this one's clock."""
    return sum(_is_alive(file, _since_sign_of_life) for file in (root / SESSIONS).glob("*"))


def _since_sign_of_life(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:  # ended just now
        return LEASE


def session(root: Path) -> Session:
    """This process' session in a results folder."""
    with _LOCK:
        place = (root, os.getpid())
        if place not in _SESSIONS or not (root / SESSIONS / _SESSIONS[place].name).exists():
            _SESSIONS[place] = Session(root / SESSIONS)
        return _SESSIONS[place]


class Claim:
    """The right to do one thing, until it is released or its process is gone."""

    def __init__(self, file: Path, earlier: list[Path]) -> None:
        self._files = [*earlier, file]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give it up; what was taken over goes first, so that the last name to go is this claim's."""
        for file in self._files:
            file.unlink(missing_ok=True)


def claim(folder: Path, name: str, by: Session) -> Claim | None:
    """The claim to a name; None where a process that is alive has it, this one included."""
    folder.mkdir(exist_ok=True)
    held = sorted((file for file in folder.glob(f"{name}.*") if file.suffix[1:].isdigit()), key=_generation)
    if held and _is_held(held[-1], by):
        return None
    file = folder / f"{name}.{_generation(held[-1]) + 1 if held else 0}"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        os.write(descriptor, by.name.encode())
    finally:
        os.close(descriptor)
    return Claim(file, held)


def _generation(file: Path) -> int:
    return int(file.suffix[1:])


def _is_held(file: Path, by: Session) -> bool:
    try:
        owner = file.read_text()
    except FileNotFoundError:
        return True  # released just now: whoever asks again is told what came of it
    if owner:
        return by.is_alive(owner)
    return by._age(file) < LEASE  # it is just being written, or was cut off then


def _machine() -> str:
    """What tells a process number's meaning: the host, since when it runs, and the container's own numbering."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts) if os.name == "posix" else uuid.uuid4().hex  # elsewhere a process cannot be asked for safely


def _born(process: int) -> str | None:
    """When a process started, as numbers of processes are used again; None where there is none."""
    try:
        state, *numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else numbers[18]  # it has ended, and its parent has not noticed yet
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
