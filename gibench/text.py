"""Text that can be stored and sent. Python keeps a file name's bytes that are no UTF-8 as lone surrogates."""

from __future__ import annotations

RENAME = "rename it, or set PYTHONUTF8=1 if it is UTF-8 and the locale is not"  # the mend where text is not storable


def is_storable(text: str) -> bool:
    """Whether the text is UTF-8, as files, databases and servers hold it."""
    return storable(text) == text


def storable(text: str) -> str:
    """The text with what is no UTF-8 written out after backslashes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
