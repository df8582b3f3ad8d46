"""Templates to pages. Whatever a text holds, it is shown letter by letter: escaped, and with controls written out."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gibench.text import storable, visible

_PARTS = re.compile(r"(?<=[:,=_+-])(?=\w)")
_FOLDER = Path(__file__).parent / "templates"


def render(template: str, root: str = "", **values: Any) -> bytes:
    """A page; `root` leads from its folder to that of the index."""
    return _templates().get_template(template).render(values, root=root).encode("utf-8")


def asset(name: str) -> bytes:
    """A file that pages share."""
    return (_FOLDER / name).read_bytes()


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters["breakable"] = _breakable
    return made


def _breakable(spec: str) -> Markup:
    """A spec that may go on in the next line where its parts meet, and not in the middle of a word."""
    return Markup("<wbr>").join(_PARTS.split(visible(storable(spec))))


def _shown(value: Any) -> Any:
    return visible(storable(value)) if isinstance(value, str) and not isinstance(value, Markup) else value
