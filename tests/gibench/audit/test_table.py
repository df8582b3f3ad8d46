"""The table of clients in the audit's README: each line is what an audit of that client's update says."""

import re
from pathlib import Path

import pytest

import gibench
from gibench.errors import UsageError
from tests.gibench.audit.clients import CLIENTS, QUICK

README = Path(__file__).parents[3] / "gibench" / "audit" / "README.md"
HEAD = "| case | client and what is told | verdict | certified | recovered | the report says |"
CASES = [str(number) for number in range(1, 11)]


def lines():
    text = README.read_text(encoding="utf-8").partition(HEAD)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def outcome(client):
    """Verdict, certified pixels (and inputs), images recovered to the last grey level, and everything that is said."""
    sent = client()
    options = {"device": "cpu", "training": sent.told} | sent.options
    shape = options.pop("shape", tuple(sent.images.shape[1:]))
    try:
        report = gibench.audit(sent.model, sent.update, shape, sent.mean, sent.std, **options)
    except UsageError as error:
        return ["refused", "-", "-"], str(error)
    distance = (report.images[:, None] - sent.images[None]).abs().flatten(2).amax(2)
    exact = distance < 0.5 / 255
    assert bool(exact.any(1)[report.certain_pixels].all())  # no certificate of pixels is false
    recovered = int(exact.any(0).sum())
    pixels = f"; {report.pixels.reason}; std {report.pixels.std}" if report.pixels else ""
    skipped = "; ".join(each.reason for each in report.attempts)
    said = f"{report.reason}; {report.cause}; label smoothing {report.smoothing or 0:.3g}"
    certified, inputs = report.certified_pixels, report.certified_inputs
    figures = [f"{certified} ({inputs} inputs)" if inputs > certified else str(certified), str(recovered)]
    return [report.verdict, *figures], f"{said}{pixels}; {skipped}"


def agrees(found, shown):
    """Whether a figure is as the table has it; `some` is any but none, where how many is a matter of rounding."""
    return re.fullmatch(re.escape(shown).replace("some", "[1-9][0-9]*"), found) is not None


@pytest.mark.parametrize(
    "line", [pytest.param(each, id=each[1], marks=() if each[1] in QUICK else pytest.mark.slow) for each in lines()]
)
def test_a_line_is_what_the_audit_says(line):
    _, name, *shown, says = line
    found, said = outcome(CLIENTS[name])
    assert all(map(agrees, found, shown)), (found, shown)
    assert "\n" not in said
    assert all(part in said for part in says.split(" ... "))


def test_every_client_has_a_line_and_every_case_one_at_least():
    assert sorted(line[1] for line in lines()) == sorted(CLIENTS)
    assert {line[0] for line in lines()} - {""} == set(CASES)
