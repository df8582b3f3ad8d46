"""The file itself: a zip of few kinds of members, read into memory within limits and never unpacked to the disk."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from gibench.errors import UsageError
from gibench.sweep.request import MAX_JOBS

MANIFEST, ROWS, COSTS, CODE, SUITE = "manifest.json", "rows.csv", "costs.csv", "code.json", "suite.yaml"
LARGEST_FILE, LARGEST_MEMBER, LARGEST_WHOLE = 2**28, 2**26, 2**29  # bytes: of the zip, of a member and of all unpacked
_MOST_MEMBERS = MAX_JOBS + 5
_NAME = re.compile(rf"{'|'.join(map(re.escape, (MANIFEST, ROWS, COSTS, CODE, SUITE)))}|images/[0-9a-f]{{16}}\.csv")
_MOMENT = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same rows are the same bytes
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error, zlib.error)


def images_of(key: str) -> str:
    """The member that holds the per-image table of a cell."""
    return f"images/{key}.csv"


def packed(members: Mapping[str, bytes]) -> bytes:
    """A zip of the members; the same members give the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            entry.create_system = 3  # the system it is written on is no part of it
            archive.writestr(entry, members[name])
    return stream.getvalue()


def is_one(file: Path) -> bool:
    """Whether a file looks like such a zip and not like a table of rows."""
    try:
        with file.open("rb") as stream:
            return stream.read(2) == b"PK"
    except OSError:
        return False


def unpacked(file: Path) -> dict[str, bytes]:
    """The members by name.

    Raises:
        UsageError: there is no such file, it is no such zip, or it holds more, or other things, than it may.
    """
    try:
        if not file.is_file():
            raise UsageError(f"there is no file {file}: give one that gibench export wrote")
        if file.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{file} is refused: it is larger than {LARGEST_FILE >> 20} MB")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if fault := _fault(entries):
                raise UsageError(f"{file} is refused: {fault}: give a file as gibench export wrote it")
            return {entry.filename: _read(archive, entry, file) for entry in entries}
    except (zipfile.BadZipFile, *_BROKEN) as error:
        raise UsageError(f"{file} cannot be read ({error}): give a file as gibench export wrote it") from None


def _fault(entries: list[zipfile.ZipInfo]) -> str | None:
    """What is wrong with the list of members, or None; nothing of them has been read yet."""
    names = [entry.orig_filename for entry in entries]
    if len(entries) > _MOST_MEMBERS or sum(entry.file_size for entry in entries) > LARGEST_WHOLE:
        return f"it has more than {_MOST_MEMBERS} members, or unpacks to more than {LARGEST_WHOLE >> 20} MB"
    if faults := list(filter(None, map(_fault_of, entries))):
        return faults[0]
    if len(set(names)) < len(names):
        return f"it has two members {next(name for name in names if names.count(name) > 1)}"
    missing = sorted({MANIFEST, ROWS} - set(names))
    return f"it has no {missing[0]}" if missing else None


def _fault_of(entry: zipfile.ZipInfo) -> str | None:
    name = entry.orig_filename
    if not _NAME.fullmatch(name) or entry.filename != name:
        return f"it has a member {name[:100]!r}, which no submission has"
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"its member {name} is encrypted, or packed in an unusual way"
    return f"its member {name} has more than {LARGEST_MEMBER >> 20} MB" if entry.file_size > LARGEST_MEMBER else None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> bytes:
    with archive.open(entry) as stream:
        found = stream.read(entry.file_size + 1)
    if len(found) != entry.file_size:  # as the list says, which the limits were held against
        raise UsageError(f"{file} is refused: its member {entry.filename} has another size than its list says")
    return found
