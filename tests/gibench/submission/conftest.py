"""A small submission of cells that were really run, and how to write a changed one."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from gibench.experiment import run_cell
from gibench.job import key_of
from gibench.results import Results
from gibench.stored import Stored
from gibench.submission import content, export
from gibench.submission.export import axes_named
from gibench.sweep.suite import Suite

SUITE = """\
name: little
attack: [analytic, mean-image, random, "wrong-gradient:attack=analytic"]
defense: [none, dp]
model: mlp:width=20,depth=2
batch_size: 4
seed: [0, 1]
device: cpu
threads: 1
"""


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    """The suite's file."""
    file = tmp_path_factory.mktemp("suite") / "little.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture(scope="session")
def folder(suite, tmp_path_factory):
    """A results folder with its cells."""
    where = tmp_path_factory.mktemp("results")
    results = Results(where, "gibench", create=True)
    for cell in Suite.read(suite, {}).cells():
        done = run_cell(cell, lambda message, fraction=None: None)
        results.save(replace(done, row=replace(done.row, workers=1)), pictures=False)
    return where


@pytest.fixture(scope="session")
def honest(folder, suite):
    """What is exported of it."""
    return export.export(Stored(folder, None, "gibench"), suite).submission


@pytest.fixture
def file_of(tmp_path):
    """A function that writes a submission into a file, its manifest made for it."""

    def write(submission, name="rows.zip"):
        file = tmp_path / name
        file.write_bytes(content.written(submission, "0.1.0"))
        return file

    return write


def moved(submission, row, **changes):
    """The submission with a row changed, its key made anew where an axis changed, as who knows the rules would."""
    code = submission.codes[row.cell]
    other = replace(row, **changes)
    other = replace(other, cell=key_of(axes_named(other), code.versions, code.sources))
    rows = [other if each is row else each for each in submission.rows]
    images = {other.cell if key == row.cell else key: text for key, text in submission.images.items()}
    codes = {other.cell if key == row.cell else key: each for key, each in submission.codes.items()}
    return replace(submission, rows=rows, images=MappingProxyType(images), codes=codes)
