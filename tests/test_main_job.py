"""The main job, end to end through the program: SPEAR++ on real photographs against no defense and DP-SGD."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gibench.cli import main
from gibench.results import Results

CELL = ["--attack", "spearpp", "--model", "mlp:width=200,depth=5", "--batch-size", "8", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def rows(folder):
    """The rows of the main job, by defense, as the installed program prints them."""
    defenses = ["none", "dp:noise_multiplier=1e-4", "dp"]
    options = [part for defense in defenses for part in ("--defense", defense)]
    command = [Path(sys.executable).with_name("gibench"), "run", *CELL, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(defenses, json.loads(done.stdout), strict=True))


@pytest.fixture
def gibench(folder, monkeypatch, capsys):
    """Call the program in this process, in the same working folder; gives the rows."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return json.loads(out)

    return run


def digests(folder, row):
    paths = Results(folder / "gibench-results").paths(row["cell"])
    return {key: hashlib.sha256(Path(paths[key]).read_bytes()).hexdigest() for key in ("grid", "images")}


def test_without_defense_every_image_is_exact_and_certified(rows):
    row = rows["none"]
    assert (row["status"], row["exact_rate"], row["certified_rate"]) == ("ok", 1, 1)
    assert row["false_certificates"] == 0
    assert row["epsilon"] is None


def test_weak_noise_hides_little(rows):
    row = rows["dp:noise_multiplier=1e-4"]
    assert row["status"] == "ok"
    assert row["psnr_mean"] > 35
    assert row["epsilon"] > 1e6


def test_real_noise_hides_all_and_the_attack_says_so(rows):
    row = rows["dp"]
    assert (row["status"], row["n_reconstructed"], row["certified_rate"]) == ("ok", 0, 0)
    assert row["epsilon"] == pytest.approx(4.377, abs=1e-3)


@pytest.mark.parametrize("defense", ["none", pytest.param("dp:noise_multiplier=1e-4", marks=pytest.mark.slow)])
def test_the_same_cell_gives_the_same_bits(gibench, rows, folder, defense):
    """In another process than before."""
    first = rows[defense]
    before = digests(folder, first)  # the row of a forced run takes its place
    (second,) = gibench("run", *CELL, "--defense", defense, "--force", "--executor", "local")
    measured = {"runtime_s", "peak_memory_mb", "run_id", "started"}
    assert first["run_id"] != second["run_id"]
    assert {key for key in first if first[key] != second[key]} <= measured
    assert digests(folder, second) == before


def test_each_image_is_stored_with_its_scores(gibench, rows):
    (shown,) = gibench("show", rows["none"]["cell"], "--json")  # its run may have been forced since
    with Path(shown["images"]).open() as file:
        images = list(csv.DictReader(file))
    assert len(images) == 8
    assert {image["exact"] for image in images} == {"True"}
    assert {image["certified"] for image in images} == {"True"}
