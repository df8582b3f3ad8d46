"""Measured figures on the pages are rendered: what looks like one outside of markers is told why it is none."""

import re
from pathlib import Path

import pytest

from gibench.leaderboard import publish

ROOT = Path(__file__).parents[2]
UNIT = r"(?:dB|s|sec|seconds?|minutes?|hours?|ms|kB|MB|MiB|GB|GiB|%|percent)"
LOOKS_MEASURED = re.compile(
    rf"\d[\d.,]*\s*{UNIT}(?!\w)|\d[\d.,]*(?: times| x|x) (?:as|faster|slower|more|less|the)\b"
    r"|\b(?:none|\d[\d.,]*)(?: [a-z]+){0,3} (?:out )?of (?:the |all )?\d[\d,]*|\bepsilon`? of \d|\brate of \d"
)
KEPT = {  # what stands on a page, and why no row says it
    "attacks/README.md": {"20,000 values of 20 levels": "a limit"},
    "attacks/spearpp/README.md": {
        "with 95 % confidence": "the level of a bound",
        "standard deviations, 65 dB": "arithmetic: half a grey level over its standard deviation",
    },
    "defenses/README.md": {
        "300 rounds of 20 out of 658": "the setting that the figures beside it are computed for",
        "a Renyi epsilon of 10,000": "a limit",
        "with 99 % confidence": "the level of a test",
        "30 % too low": "what a test is made to find",
    },
    "leaderboard/README.md": {
        '"seeds 1 of 4"': "an example of what a table says",
        "a\n  steady 55 dB": "an example of a rule",
        "are 95 % bootstrap": "the level of an interval",
        "in brackets 95 % bootstrap": "the level of an interval",
        "leaves open at 95 %": "the level of a bound",
        "PSNR 1 dB": "a tolerance",
    },
    "gibench/audit/README.md": {
        "std 10 % off": "a setting; the table is held against audits by its own test",
        "8 of 40 candidates": "of a table that is held against audits by its own test",
    },
    "gibench/datasets/README.md": {
        "about 57% / 6% / 37%": "how data are split",
        "94% and 6% of the official": "how data are split",
        "other within 25 dB": "a threshold",
        "images within 25 dB": "a threshold",
    },
    "gibench/scoring/README.md": {
        "capped at 100 dB": "a limit",
        "at least 20 dB": "a threshold, held against the code by a test",
    },
}


def typed(text, kept=()):
    """What looks measured in a text, outside of markers, code blocks and what is kept."""
    for rendered in (publish.TABLE, publish.VALUE, re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)):
        text = rendered.sub(" ", text)
    for phrase in kept:
        text = text.replace(phrase, " ")
    return [text[max(0, found.start() - 30) : found.end() + 20] for found in LOOKS_MEASURED.finditer(text)]


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in publish.pages(ROOT)])
def test_no_measured_figure_is_typed_by_hand(page):
    found = typed((ROOT / page).read_text(encoding="utf-8"), KEPT.get(page, ()))
    assert not found, "render it (leaderboard/values.py), leave it out, or say above why no row says it"


def test_nothing_is_kept_that_is_not_there():
    for page, phrases in KEPT.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert [phrase for phrase in phrases if phrase not in text or not typed(phrase)] == []


@pytest.mark.parametrize(
    "claim",
    [
        "It takes 58.6 s.",
        "It takes 3 minutes",
        "A median PSNR of 31.4 dB is reached",
        "with 512 MB more",
        "recovers 19 of 20 images",
        "none of 3,000",
        "is 10x faster",
        "is 2.5 times as fast",
        "at 0.6 % of certificates",
        "an exact rate of 0.95",
        "an epsilon of 38.96",
    ],
)
def test_what_a_hand_would_type_is_found_and_what_is_rendered_is_not(claim):
    assert typed(claim)
    assert not typed(f"<!-- figure: some-name -->{claim}<!-- end -->")
    assert not typed(f"<!-- results: some -->\n{claim}\n<!-- end -->")


@pytest.mark.parametrize("text", ["the first 8 layers", "2 seeds and 3 slots", "in 32x32 px", "arXiv 2510.24200 says"])
def test_other_numbers_are_left_alone(text):
    assert not typed(text)
