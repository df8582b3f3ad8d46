"""What worker processes are told and what they answer, in a form that costs whoever asks no import of what they do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, BinaryIO

from gibench.result import Result

if TYPE_CHECKING:
    import pandas as pd

Answer = tuple[dict[str, Any], bytes]  # JSON, and what is none
Shown = tuple[dict[str, Any], BinaryIO]  # the same where what is none may be as large as a model: it is not copied


@dataclass(frozen=True)
class Place:
    """Where a worker is to be: what its process would else have from the one that it was forked from."""

    folder: str
    path: list[str]
    environment: dict[str, str]
    memory: int | None  # bytes of private memory at most


def send_file(connection: Connection, file: BinaryIO) -> None:
    """Hand on an open file, which is closed here."""
    with file, socket.socket(fileno=os.dup(connection.fileno())) as line:
        socket.send_fds(line, [b"."], [file.fileno()])


def receive_file(connection: Connection) -> BinaryIO:
    """The file that `send_file` has handed on, to be read.

    Raises:
        EOFError: nobody is there any more.
        ValueError: something else was sent.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        sent, files, _, _ = socket.recv_fds(line, 1, 1)
    if not sent:
        raise EOFError
    (file,) = files
    return os.fdopen(file, "rb")


def packed_result(result: Result) -> Answer:
    """A result as JSON and its picture, to be sent."""
    table = None if result.images is None else {name: _column(values) for name, values in result.images.items()}
    beside = {name: getattr(result, name) for name in ("diagnostics", "provenance", "seconds")}
    row = {name: value for name, value in result.row.as_dict().items() if name not in ("run_id", "started")}
    return {"row": row, "images": table, **beside}, result.grid_png or b""


def _column(values: pd.Series[Any]) -> tuple[str, list[Any]]:
    return str(values.dtype), [
        None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)
    ]


def unpacked_result(kind: Callable[..., Any], head: dict[str, Any], body: bytes) -> Result:
    """What `packed_result` made.

    Args:
        kind: of the row.
        head, body: what was sent.

    Raises:
        Exception: of any kind, where something else was sent.
    """
    import pandas as pd

    table = head["images"]
    if table is not None:
        table = pd.DataFrame({name: pd.Series(values, dtype=kind) for name, (kind, values) in table.items()})
    beside = {name: head[name] for name in ("diagnostics", "provenance", "seconds")}
    return Result(kind(**head["row"]), table, body or None, **beside)
