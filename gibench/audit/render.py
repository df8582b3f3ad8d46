"""The report for people: the same sections in a terminal, in Markdown and in one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from gibench.audit.attempts import Attempt
from gibench.audit.features import Features
from gibench.audit.report import NOT_SHOWN, AuditReport
from gibench.audit.spectrum import spectrum
from gibench.registry import readable
from gibench.spec import parse

_SIDE = 96  # pixels that a picture's longer side is enlarged to, at least half of it
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "h1{font-size:1.5em}h2{font-size:1.2em}table{border-collapse:collapse;font-size:.9em}"
    ".wide{overflow-x:auto}.wide table{width:max-content;max-width:66em}"
    "td,th{border:1px solid #8888;padding:.2em .6em;text-align:left;vertical-align:top}li{overflow-wrap:anywhere}"
    "figure{display:inline-block;margin:.3em}figcaption{font-size:.9em}img{image-rendering:pixelated}"
    ".plot{display:block;margin:1em 0}.plot img{max-width:100%;width:36em;image-rendering:auto}"
    ".certified img{outline:3px solid #00a03c}"
)
_READ_OFF, _IMAGES = "Read off the update", "Images"
_STOPPED = "Defenses that left no exact image in the stored benchmark"
_HOW_STOPPED = (
    "a pointer and no promise: the benchmark's networks and photographs are not yours. What is recognised at the PSNR "
    "of the best attack leaks all the same, and only where it is not above the controls has no attack found anything",
    "measure on your own: gibench run --defense SPEC --model SPEC; gibench utility --defense SPEC",
)


@dataclass(frozen=True)
class Section:
    """A title with lines below it, or a table whose first row is its head."""

    title: str
    lines: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()


def sections(report: AuditReport) -> list[Section]:
    """What the report says, the verdict first."""
    made = [
        Section(f"{report.verdict}: {report.reason}", _rests_on(report)),
        Section(_READ_OFF, _read_off(report)),
        Section(_IMAGES, table=_images(report)) if len(report.images) else None,
        Section("What was tried", table=_tried(report.attempts)) if report.attempts else None,
        _behind_trunk(report.features) if report.features else None,
        Section(_STOPPED, _HOW_STOPPED, _stopped(report.pointers)) if report.pointers else None,
        Section("Not told", [f"{name}: {change}" for name, change in report.protocol.unknown().items()]),
        Section("Not shown by this", NOT_SHOWN),
    ]
    return [each for each in made if each and (each is made[0] or each.lines or each.table)]


def text(report: AuditReport) -> str:
    """For a terminal."""
    blocks = []
    for section in sections(report):
        widths = [max(map(len, column)) for column in zip(*section.table, strict=True)]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in section.table]
        blocks.append("\n".join([section.title, *(f"  {line}".rstrip() for line in [*section.lines, *rows])]))
    return "\n\n".join(blocks)


def markdown(report: AuditReport) -> str:
    """The same as Markdown."""
    blocks = []
    for level, section in enumerate(sections(report)):
        rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in section.table]
        if rows:
            rows.insert(1, "|" + " --- |" * len(section.table[0]))
        lines = [f"- {line}" for line in section.lines] + [""] * bool(section.lines and rows)
        blocks.append("\n".join([f"{'##' if level else '#'} {section.title}", "", *lines, *rows]))
    return "\n\n".join(blocks) + "\n"


def page(report: AuditReport, images: bool) -> str:
    """The same as one HTML file that needs no other.

    Args:
        images: whether the candidates' pictures go in.
    """
    body = "\n".join(_block(report, section, level, images) for level, section in enumerate(sections(report)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>gibench audit: '
        f"{report.verdict}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _block(report: AuditReport, section: Section, level: int, images: bool) -> str:
    tag = "h2" if level else "h1"
    parts = [f"<{tag}>{html.escape(section.title)}</{tag}>"]
    if section.lines:
        parts.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in section.lines) + "</ul>")
    if section.table:
        rows = (
            "<tr>" + "".join(f"<{cell}>{html.escape(value)}</{cell}>" for value in row) + "</tr>"
            for cell, row in zip(["th", *["td"] * len(section.table)], section.table, strict=False)
        )
        parts.append('<div class="wide" tabindex="0"><table>' + "".join(rows) + "</table></div>")
    if images and section.title == _IMAGES:
        parts += [_figure(report, index) for index in range(len(report.images))]
    if section.title == _READ_OFF and report.looks:
        shown = _embedded(spectrum(report.looks["singular_values"], report.rank))
        about = f"the singular values of layer {report.looks['layer']}: as many stand out as there are images"
        parts.append(f'<figure class="plot"><img alt="{html.escape(about)}" src="{shown}">')
        parts.append(f"<figcaption>{html.escape(about)}</figcaption></figure>")
    return "\n".join(parts)


def write(report: AuditReport, folder: Path, images: bool) -> None:
    """`audit.md`, `audit.html` and `audit.json` in a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.md").write_text(markdown(report), encoding="utf-8")
    (folder / "audit.html").write_text(page(report, images), encoding="utf-8")
    content = json.dumps(report.as_dict(images), indent=2, allow_nan=False)
    (folder / "audit.json").write_text(content + "\n", encoding="utf-8")


def _rests_on(report: AuditReport) -> list[str]:
    lines = [f"taken for: {report.kind}"] if report.kind != "auto" else []
    if report.residual is not None:
        lines.append(f"residual: {report.residual:.1e} of the update is not explained by the candidates")
    if report.cause:
        lines.append(f"likely cause: {report.cause}")
    if report.pixels:
        lines.append(f"pixels: {report.pixels.reason}")
        if report.pixels.mean and report.pixels.std:
            mean, std = (",".join(f"{value:g}" for value in each) for each in (report.pixels.mean, report.pixels.std))
            lines.append(f"the inputs' own grid is that of mean {mean} and std {std}")
    if report.score is not None:
        exact, false = report.score["exact_rate"], report.score["false_certificates"]
        lines.append(f"against the truth: exact rate {exact:.2f}, false certificates {false or 0}")
    return lines + [f"assumed: {each}" for each in report.assumed]


def _read_off(report: AuditReport) -> list[str]:
    lines = [] if report.rank is None else [f"rank {report.rank}: of at least so many images"]
    if report.sigma is not None:
        lines.append(f"noise of an entry: {report.sigma:.1e}")
    if report.smoothing:
        lines.append(f"label smoothing: {report.smoothing:.3g}")
    if report.labels is not None:
        counts = report.labels.bincount()
        lines.append("labels: " + ", ".join(f"{index} x{int(n)}" for index, n in enumerate(counts) if n))
    if report.looks:
        lines.append(
            f"dtype {report.looks['dtype']}; entries that are zero among live ones: {report.looks['dropped']:.1%}"
        )
    return lines


def _images(report: AuditReport) -> list[list[str]]:
    rows = [["image", "certified", "on the grid", "label", "predicted error", "method"]]
    for index, sure in enumerate(report.certified.tolist()):
        claim = "pixels" if report.certain_pixels[index] else "inputs"
        label = "-" if report.labels is None else str(int(report.labels[index]))
        error = "-" if report.predicted_error is None else f"{float(report.predicted_error[index]):.1e}"
        near = "-" if report.on_grid is None else "yes" if report.on_grid[index] else "no"
        rows.append([str(index), claim if sure else "no", near, label, error, report.method or "-"])
    return rows


def _tried(attempts: Sequence[Attempt]) -> list[list[str]]:
    rows = [["attack", "outcome", "candidates", "certified", "residual", "seconds", "reason"]]
    for each in attempts:
        found = str(len(each.found.images)) if each.found else "-"
        share = f"{each.residual.share:.1e}" if each.residual else "-"
        seconds = "-" if each.seconds is None else f"{each.seconds:.1f}"
        name = f"{each.attack} (control)" if each.control else each.attack
        rows.append([name, each.status, found, str(each.certified), share, seconds, each.reason or "-"])
    return rows


def _behind_trunk(features: Features) -> Section:
    lines = [
        f"the images pass other layers before layer '{features.layer}'. What is recovered exactly there are features, "
        f"{features.size} numbers an image, as the layer is fed them",
        f"{features.certified} of {features.candidates} rows of features are certified",
    ]
    if features.rank is not None:
        lines.append(f"rank {features.rank}: of at least so many images")
    return Section("Features behind the trunk", lines, _tried(features.attempts))


def _stopped(pointers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["defense", "epsilon", "best attack", "its PSNR dB", "above the controls", "accuracy", "without it"]]
    for each in pointers:
        epsilon = "-" if each["epsilon"] is None else f"{each['epsilon']:.3g}"
        accuracies = ("-" if each[name] is None else f"{each[name]:.2f}" for name in ("accuracy", "without"))
        above = "yes" if each["above_control"] else "no"
        names = readable("defense", each["defense"]), parse(each["attack"]).name
        rows.append([names[0], epsilon, names[1], f"{each['psnr_median']:.1f}", above, *accuracies])
    return rows


def _figure(report: AuditReport, index: int) -> str:
    sure = bool(report.certified[index])
    shown = _embedded(_png(report.images[index]))
    word = "certified" if sure else "not certified"
    return (
        f'<figure class="{word if sure else "candidate"}"><img alt="image {index}, {word}" '
        f'src="{shown}"><figcaption>{index}</figcaption></figure>'
    )


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _png(image: Tensor) -> bytes:
    """One image `[C, H, W]` in [0, 1], enlarged by whole pixels; grey where it has neither one nor three channels."""
    shown = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    scale = max(1, _SIDE // max(shown.shape[1:]))
    pixels = (shown * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0)
    pixels = pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()
