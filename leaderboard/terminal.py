"""The summary for rich to print, also where there are only 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Literal

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gibench.text import visible

from .columns import Line, Shorten, Shown
from .sections import Report, Section, in_full, quoting, sections

_BESIDE = ("defense", "attack")  # what every table of a section begins with
_WORD = 12  # characters that a spec needs at least
_RANK = 7  # as many as `control` has
_GAP, _WIDE_GAP = 1, 2  # between columns
_BREAKS = re.compile(r"(?<=[,:=+/ -])")  # where a spec is broken first

Cells = Mapping[str, Sequence[str]]  # by column, a text a line


def to_terminal(report: Report, shorten: Shorten = in_full, width: int = 200) -> Group:
    """A section for each scenario and threat model.

    Where the usual columns do not fit, words and intervals are folded first, then the last columns are left out and
    named; of those that are asked for none is left out, and what does not fit follows as another table.

    Args:
        report, shorten: see `gibench.leaderboard.formats.markdown`.
        width: characters of a line.
    """
    quoted = quoting(shorten, visible)
    parts: list[Group | Text] = []
    for section in sections(report, quoted, visible, visible):
        parts += [Text()] if parts else []
        parts += [Text(section.title, "bold"), Text(), *_tables(section, report, quoted, width)]
        parts += [Text(note) for note in section.notes]
    return Group(*(parts or [Text("no stored rows")]))


def _tables(section: Section, report: Report, quoted: Shorten, width: int) -> Iterator[Group | Text]:
    chosen, whole = report.chosen, report.is_asked
    cells = {name: [_text(each, line, quoted) for line in section.lines] for name, each in chosen.items()}
    widths = {name: max(map(len, (chosen[name].heading, *texts))) for name, texts in cells.items()}
    if sum(widths.values()) + _WIDE_GAP * len(widths) <= width:
        yield _table(chosen, cells, widths, _WIDE_GAP)
        return
    cells = {name: [text.replace(" [", "\n[") for text in texts] for name, texts in cells.items()}
    widths = {name: _folded(chosen[name], cells[name]) for name in cells}
    first = {name: widths[name] for name in _BESIDE if name in widths}
    room = width - sum(first.values()) - _GAP * len(first)
    blocks = _blocks({name: each for name, each in widths.items() if name not in first}, room)
    for number, block in enumerate(blocks if whole else blocks[:1]):
        if number:
            yield Text()
        words = first | {name: widths[name] for name in block if chosen[name].is_text}
        wide = _shared_out(words, cells, max(0, room - sum(widths[name] + _GAP for name in block)))
        yield _table({name: chosen[name] for name in chosen if name in (*first, *block)}, cells, widths | wide, _GAP)
    if not whole and (out := [name for block in blocks[1:] for name in block]):
        yield Text(f"left out for want of room, see --columns: {', '.join(out)}", "dim")


def _blocks(widths: Mapping[str, int], room: int) -> list[list[str]]:
    """The columns in their order, as many as there is room for at a time; one that never fits stands alone."""
    blocks: list[list[str]] = [[]]
    left = room
    for name, width in widths.items():
        if blocks[-1] and width + _GAP > left:
            blocks.append([])
            left = room
        blocks[-1].append(name)
        left -= width + _GAP
    return blocks


def _text(column: Shown, line: Line, quoted: Shorten) -> str:
    return visible(column.show(line, quoted))


def _longest(heading: str) -> int:
    """The width of a heading that is folded between words."""
    return max(map(len, heading.split()))


def _folded(column: Shown, texts: Sequence[str]) -> int:
    """The least width that a column can be read at."""
    longest = max(len(part) for text in texts for part in text.split("\n"))
    least = _RANK if column.heading == "rank" else _WORD
    return max(_longest(column.heading), min(longest, least) if column.is_text else longest)


def _shared_out(words: Mapping[str, int], cells: Cells, spare: int) -> dict[str, int]:
    """The room that is left goes to the columns of words, each time to the one that lacks most of what it could use."""
    wide = dict(words)
    wanted = {name: max(map(len, cells[name])) for name in words}
    for _ in range(spare):
        if short := [name for name in wide if wide[name] < wanted[name]]:
            wide[min(short, key=lambda name: wide[name] / wanted[name])] += 1
    return wide


def _table(chosen: Mapping[str, Shown], cells: Cells, widths: Mapping[str, int], gap: int) -> Group:
    """Rich draws the head alone: of thousands of lines it would take seconds."""
    head = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for name, each in chosen.items():
        side: Literal["left", "right"] = "left" if each.is_text else "right"
        head.add_column(Text(each.heading), justify=side, overflow="fold", width=widths[name])
    sides = [(widths[name], each.is_text) for name, each in chosen.items()]
    lines: list[str] = []
    for texts in zip(*(cells[name] for name in chosen), strict=True):
        parts = [_broken(text, width) for text, (width, _) in zip(texts, sides, strict=True)]
        for line in zip_longest(*parts, fillvalue=""):
            padded = (_padded(text, *side) for text, side in zip(line, sides, strict=True))
            lines.append((" " * gap).join(padded))
    return Group(head, Text("\n".join(lines), no_wrap=True, overflow="ignore"))


def _padded(text: str, width: int, left: bool) -> str:
    blank = " " * (width - cell_len(text))
    return text + blank if left else blank + text


def _broken(text: str, width: int) -> list[str]:
    """The text on lines of a width, broken after punctuation where it can be."""
    if "\n" not in text and cell_len(text) <= width:
        return [text.rstrip(" ")]
    lines: list[str] = []
    for given in text.split("\n"):
        lines.append("")
        for part in _BREAKS.split(given):
            if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return [part.rstrip(" ") for line in lines for part in chop_cells(line.rstrip(" "), width) or [""]]
