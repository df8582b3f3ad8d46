"""The folder of a site: nothing of anybody else's is overwritten or deleted, and no page is there in part."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from gibench.errors import UsageError
from gibench.results.place import holding

MARKER = ".gibench-site"  # says that the folder is ours
_OURS = re.compile(
    rf"(index|map|curves)\.html|style\.css|script\.js|{re.escape(MARKER)}"
    r"|rows/[0-9a-f]{16}\.(html|png)|(rows/)?\.[0-9a-f]{32}\.new"
)


class Place:
    """A site while it is written. What it had before and was not written again is deleted at the end, if all went well.

    Raises:
        UsageError: the folder holds anything but a site of ours, lies among results, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: set[str] = set()

    def __enter__(self) -> Self:
        if results := holding(self._folder):
            raise UsageError(f"{self._folder} is within the results folder {results}: name a folder beside it")
        try:
            if self._folder.exists():
                self._check(list(self._files()))
            (self._folder / "rows").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from None
        self.write(MARKER, b"A site that gibench wrote, and will write anew: keep nothing else here.\n")
        return self

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file at once."""
        file = self._folder / name
        partial = file.with_name(f".{uuid.uuid4().hex}.new")
        try:
            partial.write_bytes(content)
            os.replace(partial, file)
        except OSError as error:
            raise self._refused(error) from None
        self._written.add(name)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error:
            return
        try:
            for name in set(self._files()) - self._written:
                (self._folder / name).unlink(missing_ok=True)
        except OSError as refusal:
            raise self._refused(refusal) from None

    def _files(self) -> Iterator[str]:
        """Everything in the folder but the folder of rows, whose content is named with it."""
        for prefix, folder in (("", self._folder), ("rows/", self._folder / "rows")):
            if prefix and not folder.is_dir():
                return
            for entry in os.scandir(folder):
                is_rows = not prefix and entry.name == "rows" and entry.is_dir(follow_symlinks=False)
                if not is_rows:
                    is_file = entry.is_file(follow_symlinks=False)
                    yield prefix + entry.name + ("" if is_file else os.sep)

    def _check(self, files: list[str]) -> None:
        others = sorted(name for name in files if not _OURS.fullmatch(name))
        if files and MARKER not in files:
            others = others or sorted(files)
        if others:
            raise UsageError(
                f"{self._folder} holds {others[0]}, which is no part of a site of gibench: name a folder that is "
                "new, empty or such a site"
            )

    def _refused(self, error: OSError) -> UsageError:
        return UsageError(f"{self._folder} cannot be written: {error.strerror or error}: name another folder")
