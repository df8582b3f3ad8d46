"""What is for people as LaTeX: booktabs tables, the best of rivals in bold, intervals as subscripts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from gibench.text import visible

from .columns import Line, Shorten, Shown
from .sections import Report, Section, in_full, quoting, sections

PACKAGES = r"\usepackage{booktabs,array}"
_WORDS = r">{\raggedright\arraybackslash}p{9em}"  # a column whose texts are folded
_COMPARED = frozenset(  # seconds are never ranked (rule E16), and what a defense promises is no attack's merit
    {"exact_rate", "psnr_median", "psnr_mean", "above_mean_image", "recognisable_rate", "reidentified_rate"}
    | {"ssim_mean", "lpips_mean", "certified_rate", "label_accuracy", "labels_found"}
)
_ESCAPED = {
    **{each: f"\\{each}" for each in "{}$&#_%"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"[": "{[}", "]": "{]}", "*": "{*}"},  # a line break before them would read them as its own
}
_BREAKS = re.compile(r"(?<=[,:=+/])")  # where a long spec may be broken
_MARK = "\0"  # on either side of a value; text that is visible has none
_INTERVAL = re.compile(r"(\S+) \[(.+)\]")


def to_latex(report: Report, shorten: Shorten = in_full) -> str:
    """A `table` for each section; the first line says which packages the document needs.

    Of the attacks that are ranked among each other the best figure is in bold, unless it is not above the control.

    Args:
        report, shorten: see `gibench.leaderboard.formats.markdown`.
    """
    quoted = quoting(shorten, _marked)
    parts = [_table(section, report.chosen, quoted) for section in sections(report, quoted, _marked, visible)]
    return "\n\n".join([f"% {PACKAGES}", *(parts or ["No stored rows."])]) + "\n"


def escaped(text: str) -> str:
    """The text as LaTeX shows it letter by letter; what is not ASCII is written out, since a font may lack it."""
    ascii_only = visible(text).encode("ascii", "backslashreplace").decode("ascii")
    return "".join(_ESCAPED.get(each, each) for each in ascii_only)


def code(text: str) -> str:
    """The text in type of one width, with places to break it."""
    parts = r"\allowbreak ".join(map(escaped, _BREAKS.split(text)))
    return rf"\texttt{{{parts}}}"


def _marked(text: str) -> str:
    """A value within words, which `_set` sets as code."""
    return f"{_MARK}{visible(text)}{_MARK}"


def _set(text: str) -> str:
    """Words with marked values in them as LaTeX."""
    return "".join(code(part) if place % 2 else escaped(part) for place, part in enumerate(text.split(_MARK)))


def _table(section: Section, chosen: Mapping[str, Shown], quoted: Shorten) -> str:
    kinds = "".join(_WORDS if each.is_text else "r" for each in chosen.values())
    heads = " & ".join(escaped(each.heading) for each in chosen.values())
    notes = [rf"{_set(note)}\par" for note in section.notes]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_set(section.title)}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            rf"{heads} \\",
            r"\midrule",
            *_body(section.lines, chosen, quoted),
            r"\bottomrule",
            r"\end{tabular}\par\smallskip",
            *notes,
            r"\end{table}",
        ]
    )


def _body(lines: Sequence[Line], chosen: Mapping[str, Shown], quoted: Shorten) -> Iterator[str]:
    best = {name: _best(lines, name, each, quoted) for name, each in chosen.items() if name in _COMPARED}
    for line in lines:
        fields = [
            _field(each, each.show(line, quoted), id(line) in best.get(name, ())) for name, each in chosen.items()
        ]
        yield rf"{' & '.join(fields)} \\"


def _field(column: Shown, text: str, is_best: bool) -> str:
    found = None if column.is_text else _INTERVAL.fullmatch(text)
    if found is None:
        return _bold(_set(text), is_best)
    return rf"{_bold(found[1], is_best)}$_{{[{found[2]}]}}$"


def _bold(text: str, is_best: bool) -> str:
    return rf"\textbf{{{text}}}" if is_best else text


def _best(lines: Sequence[Line], name: str, column: Shown, quoted: Shorten) -> set[int]:
    """The lines, by identity, that show the best figure of those they are ranked with, if there are several."""
    rivals: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        if line.get("rank") is not None:
            rivals.setdefault((line["defense"], bool(line["adaptive"])), []).append(line)
    found: set[int] = set()
    for some in rivals.values():
        figures = {id(line): float(text) for line in some if (text := column.show(line, quoted).split()[0]) != "-"}
        above = {id(line) for line in some if line["above_control"] is not False}
        if len(some) > 1 and figures:
            most = max(column.better * each for each in figures.values())
            found |= {each for each, value in figures.items() if column.better * value == most} & above
    return found
