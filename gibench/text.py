"""Text that can be stored and shown. Python keeps a file name's bytes that are no UTF-8 as lone surrogates.

What other people's code and settings say may hold anything: `visible` is for terminals, `prose` and `code` are for
Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_MARKUP = re.compile(r"[^\w ,.;:()%+='-]|_|www\.")  # what Markdown may read as more than letters
RENAME = "rename it, or set PYTHONUTF8=1 if it is UTF-8 and the locale is not"  # the mend where text is not storable
LONGEST = 10_000  # characters of a text that is noted; of a longer one the middle is left out


def is_storable(text: str) -> bool:
    """Whether the text is UTF-8, as files, databases and servers hold it."""
    return storable(text) == text


def storable(text: str) -> str:
    """The text with what is no UTF-8 written out after backslashes, and NUL, which databases refuse."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", r"\x00")


def text_of(value: Any, longest: int = LONGEST) -> str:
    """The value as storable text of bounded length, whatever its `__str__` does."""
    try:
        text = str(value)
    except (Exception, SystemExit) as error:
        return f"{type(value).__name__} without a text ({type(error).__name__})"
    return shortened(storable(text), longest)


def shortened(text: str, longest: int) -> str:
    """The text without its middle if it is longer, with about how much that was; shortened again it stays the same."""
    if len(text) <= longest:
        return text
    word = f" ... {len(text) - longest} characters ... "
    kept = longest - len(word)
    return f"{text[: kept - kept // 2]}{word}{text[len(text) - kept // 2 :]}" if kept > 0 else text[:longest]


def type_of(value: Any) -> str:
    """What a value is, with its article: `an int`."""
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeioAEIO" else f"a {name}"


def one_line(value: Any, longest: int = LONGEST) -> str:
    """The value as text on one line: see `text_of`."""
    return " ".join(text_of(value, longest).split())


def visible(text: str) -> str:
    """The text on one line, with what a terminal obeys or nobody sees (controls, marks of direction) written out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def outline(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A line a value, nested mappings indented, texts of several lines below their name."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from outline(value, f"{indent}  ")
        elif isinstance(value, str) and "\n" in value:
            yield f"{indent}{key}:"
            yield from (f"{indent}  {line}" for line in value.splitlines())
        else:
            yield f"{indent}{key}: {_short(value)}"


def _short(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_short, value)) if isinstance(value, list) else str(value)


def prose(text: str) -> str:
    """The text as Markdown shows it letter by letter: as it is where it has no markup, else as `code`."""
    return code(text) if _MARKUP.search(visible(text)) else visible(text)


def code(text: str) -> str:
    """The text as a code span of Markdown, where nothing is a link, a tag or emphasis; nothing of nothing.

    Within a table a pipe is escaped by whoever makes the table.
    """
    text = visible(text).replace(r"\|", r"\x7c")  # a table would read the backslash as the pipe's
    if not text:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{padding}{text}{padding}{fence}"
