"""Writes folders and files that are there as a whole or not at all, also after a kill or a power cut."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path


def write_folder(folder: Path, files: Mapping[str, bytes], also: Iterable[Path] = ()) -> None:
    """Make a folder of files and wait until the disk has them.

    The waits are beside each other: a disk takes little longer for several than for one.

    Args:
        folder: which is not there.
        files: content by name.
        also: folders whose earlier renames the disk is to have too.

    Raises:
        OSError: the system refuses; nothing is left of the folder.
    """
    folder.mkdir()
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        list(_pool().map(synchronize, [*(folder / name for name in files), folder, *also]))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def put_in_place(beside: Path, place: Path, old: Path) -> None:
    """Give a whole folder its name, in the place of one that has it.

    Args:
        beside: the folder.
        place: what it is to be called.
        old: what the other is called meanwhile, `.SESSION.NAME.old`: see `recover`.

    Raises:
        OSError: the system refuses; the other one is where it was.
    """
    while True:
        # Between the two renames there is none, and `recover` brings the other back if this process ends there.
        with contextlib.suppress(FileNotFoundError):
            place.rename(old)
        try:
            beside.rename(place)
        except OSError:
            if not place.exists():
                with contextlib.suppress(FileNotFoundError):
                    old.rename(place)
                raise
            shutil.rmtree(old, ignore_errors=True)  # another process was faster: its own goes next
            continue
        shutil.rmtree(old, ignore_errors=True)
        return


def recover(folder: Path, is_alive: Callable[[str], bool]) -> None:
    """Undo what processes that are gone had begun in a folder: `.SESSION.NAME.new` and `.SESSION.NAME.old`."""
    for left in folder.glob(".*.*.*"):
        owner, name, what = left.name[1:].split(".", 2)
        if what not in ("new", "old") or is_alive(owner):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            if what == "old" and not (folder / name).exists():
                left.rename(folder / name)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def write_file(file: Path, content: bytes, beside: str) -> None:
    """Make or replace a file at once; `beside` is a name for it meanwhile that nobody else uses."""
    partial = file.with_name(beside)
    try:
        partial.write_bytes(content)
        synchronize(partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def append_line(file: Path, line: str) -> None:
    """Add a line in one write, so that those of several processes do not mix."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        # What another process was killed in the middle of ends here.
        whole = _ends_in_a_line(file)
        os.write(descriptor, ("" if whole else "\n").encode() + line.encode() + b"\n")
    finally:
        os.close(descriptor)


def _ends_in_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def synchronize(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder (which Windows does not tell)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(5, "gibench-fsync")  # threads: a cell's three files, its folder and the one it is in
