"""Where an MLflow store is: the address that is meant, and how it is shown, without a password."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gibench.sqlite_store import SQLITE

DEFAULT_URI = "sqlite:///gibench.db"  # in the working folder
VARIABLE = "MLFLOW_TRACKING_URI"
SERVERS = ("http://", "https://")


def is_missing(uri: str | None) -> bool:
    """Whether nothing was named and there is no store in the working folder either."""
    return _meant(uri) == DEFAULT_URI and not Path(DEFAULT_URI.removeprefix(SQLITE)).exists()


def address(uri: str | None) -> str:
    """The store that is meant: the one given, else the environment's, else a database in the working folder.

    Args:
        uri: `sqlite:///FILE`, `http(s)://HOST:PORT` of an MLflow server (also as a browser shows a page of it), or
            another database MLflow knows; None or nothing where none is given.
    """
    return _plain(_meant(uri))


def shown(uri: str | None) -> str:
    """The store's address for people to read, without a password."""
    return _plain(without_password(_meant(uri)))


def _meant(uri: str | None) -> str:
    return uri or os.environ.get(VARIABLE) or DEFAULT_URI


def _plain(uri: str) -> str:
    return re.split("[?#]", uri)[0].rstrip("/") if uri.startswith(SERVERS) else uri


def without_password(text: str) -> str:
    """The text without what stands before an @ in an address, or after a ? in one."""
    return re.sub(r"\S+", lambda word: _without_secrets(word[0]), text)


def _without_secrets(word: str) -> str:
    scheme, is_address, rest = word.rpartition("://")
    if scheme.rpartition("'")[2] == "sqlite":  # a path may hold an @, and has no password
        return word.partition("?")[0]
    if not is_address and not re.match(r"[^/@]*:[^@]*@", rest):
        return word
    host = re.split("[/?#]", rest)[0]
    if "@" in rest and ("@" in host or not re.fullmatch(r"(.*\]|[^:]*)(:\d*)?", host)):  # a password may hold either
        rest = host.rpartition("@")[2] + rest[len(host) :] if "@" in host else rest.rpartition("@")[2]
    return scheme + is_address + re.sub(r"[?#][^'\")]*", "", rest)


def mend(uri: str | None) -> str:
    """Where another store is named."""
    of_environment = os.environ.get(VARIABLE) and address(uri) == address(None)
    return f"see {VARIABLE}, or --tracking-uri" if of_environment else "see --tracking-uri"
