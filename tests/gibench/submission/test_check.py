"""An honest submission passes; whatever is changed in one is found, and the line names the row and the mend."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.experiment import run_cell
from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.table import table
from gibench.result import COLUMNS, Result
from gibench.submission import content, rerun, schema
from gibench.submission.check import check
from gibench.submission.rerun import differences

from .conftest import moved

FIGURES = [name for name in COLUMNS if name not in rerun._OF_THE_RUN and COLUMNS[name].axis is None]


def said(file):
    return [str(fault) for fault in check(file).faults]


def the(submission, attack="analytic", defense="none", seed=0):
    """A row of the submission."""
    (row,) = [
        row
        for row in submission.rows
        if (row.attack.split(":")[0], row.defense.split(":")[0], row.seed) == (attack, defense, seed)
    ]
    return row


def without(submission, drop):
    """The submission without some rows."""
    rows = [row for row in submission.rows if not drop(row)]
    keys = {row.cell for row in rows}
    images = {key: text for key, text in submission.images.items() if key in keys}
    return replace(submission, rows=rows, images=images)


def test_an_honest_submission_has_no_fault(honest, file_of):
    report = check(file_of(honest))
    assert report.faults == []
    assert report.unchecked == []
    assert len(report.submission.rows) == 16
    assert report.manifest.suite == "little"
    assert report.manifest.distributions.keys() == {"gibench"}


@pytest.mark.parametrize("lacking", [1, 2])
def test_what_an_earlier_version_did_not_measure_is_no_fault_and_a_figure_without_it_is(honest, file_of, lacking):
    images = {key: content.images(text).iloc[:, :-lacking].to_csv(index=False) for key, text in honest.images.items()}
    none_yet = dict.fromkeys(("recognisable_rate", "reidentified_rate"))
    earlier = replace(honest, images=images, rows=[replace(row, **none_yet) for row in honest.rows])
    assert said(file_of(earlier)) == []
    faults = said(file_of(replace(honest, images=images)))
    assert faults
    assert all("reidentified_rate is" in fault and "and its images give None" in fault for fault in faults)


def test_every_figure_has_a_range_and_every_rate_its_tolerance():
    figures = {name for name, column in COLUMNS.items() if column.axis is None and column.type in (int, float)}
    assert figures == schema._RANGES.keys()
    rates = {name for name in FIGURES if name.endswith("_rate")}
    assert len(rates) > 3
    assert rates <= rerun.TOLERANCES.keys()


def test_what_is_written_is_read_back_to_the_last_bit(honest, file_of):
    _, found = content.read(file_of(honest))
    assert found.rows == honest.rows
    assert found.images == honest.images
    assert found.codes == honest.codes
    assert (found.suite, found.name, found.altered) == (honest.suite, "little", [])


def test_a_second_run_of_a_cell_gives_the_same_to_the_last_bit(honest):
    for row in (the(honest), the(honest, "wrong-gradient", "dp", 1)):
        again = run_cell(rerun.cell_of(row), lambda message, fraction=None: None)
        assert list(differences(row, honest.images[row.cell], again, honest.codes[row.cell])) == []


TAMPERED = {  # what is done to a submission, and what is said of it
    "exact rate": (lambda s: moved(s, the(s), exact_rate=1.0), "exact_rate is 1.0, and its images give"),
    "certified rate": (lambda s: moved(s, the(s), certified_rate=1.0), "certified_rate is 1.0, and its images give"),
    "false certificates": (lambda s: moved(s, the(s), false_certificates=1), "false_certificates is 1, and its images"),
    "psnr": (lambda s: moved(s, the(s, "random"), psnr_median=30.0), "psnr_median is 30.0, and its images give"),
    "epsilon": (
        lambda s: moved(s, the(s, "random", "dp"), epsilon=0.5),
        "epsilon is 0.5, and its defense promises 4.3",
    ),
    "epsilon without noise": (
        lambda s: moved(s, the(s, "random"), epsilon=0.5, delta=1e-5),
        "an epsilon without a clip norm and noise",
    ),
    "epsilon without delta": (lambda s: moved(s, the(s, "random", "dp"), delta=None), "its epsilon lacks delta"),
    "no epsilon": (
        lambda s: moved(s, the(s, "random", "dp"), epsilon=None),
        "epsilon is None, and its defense promises",
    ),
    "adaptive": (lambda s: moved(s, the(s), adaptive=True), "adaptive is True, and its attack declares False"),
    "control": (lambda s: moved(s, the(s, "random"), control=False), "control is False, and its attack declares True"),
    "oracle": (lambda s: moved(s, the(s), oracle=None), "lacks oracle"),
    "another seed's row": (
        lambda s: moved(s, the(s, seed=1), **{**vars(the(s, seed=0)), "seed": 1, "run_id": "1" * 32}),
        "grad_norm is",
    ),
    "another seed's images": (
        lambda s: replace(s, images={**s.images, the(s, seed=1).cell: s.images[the(s, seed=0).cell]}),
        "as like each other as those of others of its batch",
    ),
    "axes without their key": (
        lambda s: replace(s, rows=[replace(r, labels="same") if r is the(s) else r for r in s.rows]),
        "its key is not that of its axes and source",
    ),
    "split": (lambda s: moved(s, the(s), split="tuning"), "it is of the tuning split"),
    "a seed left out": (
        lambda s: without(s, lambda row: row is the(s, "analytic", "dp", 1)),
        "analytic lacks the seeds 1 of others",
    ),
    "a seed left out everywhere": (
        lambda s: without(s, lambda row: row.seed == 1),
        "the seeds 1 of the suite are missing (rule E9)",
    ),
    "a control left out": (
        lambda s: without(s, lambda row: row.attack.startswith("random") and row.defense != "none"),
        "the controls random are missing",
    ),
    "a suite without a seed": (
        lambda s: replace(s, suite=s.suite.replace(b"[0, 1]", b"[0]")),
        "it is no cell of the suite",
    ),
    "another suite by that name": (lambda s: replace(s, name="demo"), "not the suite demo that is installed here"),
    "the better of two": (
        lambda s: replace(s, rows=[*s.rows, replace(the(s), run_id="2" * 32)]),
        "2 rows are of this cell",
    ),
    "two machines": (lambda s: moved(s, the(s), hardware="a faster one"), "its seconds are of"),
    "cells beside it": (lambda s: moved(s, the(s), workers=None), "how many cells ran at a time"),
    "a failure without a score": (
        lambda s: moved(
            s,
            the(s),
            status="failed",
            reason="it broke",
            **dict.fromkeys(("psnr_mean", "psnr_median", "psnr_q25", "psnr_q75", "exact_rate", "mse_mean")),
        ),
        "it is failed without a score",
    ),
    "skipped with a score": (lambda s: moved(s, the(s), status="skipped", reason="no"), "skipped and has a score"),
    "status": (lambda s: moved(s, the(s), status="great", reason="no"), "its status 'great' is none of ok"),
    "duplicates": (lambda s: moved(s, the(s), duplicate_labels=None), "lacks duplicate_labels"),
    "knowledge": (lambda s: moved(s, the(s), knows="everything"), "its knows is refused (unknown knowledge"),
    "no default settings": (lambda s: moved(s, the(s), model="mlp"), "its model is not in canonical form"),
    "a rate above one": (lambda s: moved(s, the(s), labels_found=1.5), "labels_found=1.5 is out of range"),
    "a table left out": (
        lambda s: replace(s, images={k: t for k, t in s.images.items() if k != the(s).cell}),
        "it has a score and no per-image table",
    ),
    "a table that is none": (
        lambda s: replace(s, images={**s.images, the(s).cell: "truth,mse\n0,much\n"}),
        "its per-image table cannot be read (it has other columns",
    ),
    "certificates of nothing": (
        lambda s: replace(s, images={**s.images, the(s).cell: re.sub(r"\n0,\d+,", "\n0,,", s.images[the(s).cell])}),
        "images are matched with reconstructions",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_changed_is_found(honest, file_of, name):
    change, words = TAMPERED[name]
    found = said(file_of(change(honest)))
    assert any(words in line for line in found), found
    assert all(line.count(": ") >= 2 for line in found)  # the row, the fault, the mend


def test_all_rows_of_one_seed_copied_to_another_are_found(honest, file_of):
    changed, tables = honest, {}
    for row in honest.rows:
        (first,) = [
            each for each in honest.rows if (each.attack, each.defense, each.seed) == (row.attack, row.defense, 0)
        ]
        if row.seed == 1:
            changed = moved(changed, row, **{**vars(first), "seed": 1, "run_id": row.run_id})
        tables[row.cell] = honest.images[first.cell]
    found = said(file_of(replace(changed, images=tables)))
    assert any("its gradient has the norm of that of" in line for line in found)
    assert any("its images have the errors of those of" in line for line in found)


def test_a_member_that_was_exchanged_alone_does_not_fit_the_manifest(honest, file_of, tmp_path):
    from gibench.submission import archive

    file = file_of(honest)
    members = archive.unpacked(file)
    members["rows.csv"] = to_csv(table([replace(row, runtime_s=0.0) for row in honest.rows])).encode()
    file.write_bytes(archive.packed(members))
    assert said(file) == [
        "rows.csv: it is not what the manifest was made of: export what is stored anew, and change nothing"
    ]


def test_plugins_that_are_not_installed_are_said_not_to_be_checked(honest, file_of):
    row = the(honest, "analytic")
    report = check(file_of(replace(moved(honest, row, attack="gone:setting=1"), suite=None)))
    assert any("not installed here" in line and "the attack gone" in line for line in report.unchecked)
    assert any("it names no suite" in line for line in report.unchecked)
    assert not any("gone" in str(fault) and "refused" in str(fault) for fault in report.faults)


def test_only_cells_that_name_no_file_and_can_be_had_are_run_again(honest):
    rows = [
        the(honest),
        replace(the(honest), dataset="folder:path=/etc,resize=32"),
        replace(the(honest), attack="gone"),
    ]
    rows += [replace(the(honest), status="timeout"), replace(the(honest), batch_size=-1)]
    assert the(honest) in rerun.eligible(rows)
    assert not {row.dataset for row in rerun.eligible(rows)} - {the(honest).dataset}
    assert {row.status for row in rerun.eligible(rows)} == {"ok"}
    assert "gone" not in {row.attack for row in rerun.eligible(rows)}


def test_cells_are_picked_by_the_seed_of_who_checks(honest):
    rows = rerun.eligible(honest.rows)
    assert rerun.picked(rows, 3, 5) == rerun.picked(rows, 3, 5)
    assert len({tuple(row.cell for row in rerun.picked(rows, 3, seed)) for seed in range(9)}) > 5
    assert len(rerun.picked(rows, 99, 0)) == len(rows)


def test_elsewhere_figures_may_differ_as_far_as_is_stated(honest):
    row = the(honest, "random")
    again = run_cell(rerun.cell_of(row), lambda message, fraction=None: None)
    near = replace(row, hardware="another processor", psnr_mean=row.psnr_mean + 0.5, ssim_mean=row.ssim_mean + 0.01)
    code = honest.codes[row.cell]
    assert list(differences(near, honest.images[row.cell], again, code)) == []
    for changes in ({"psnr_mean": row.psnr_mean + 1.5}, {"grad_norm": row.grad_norm * 1.01}, {"status": "diverged"}):
        (fault,) = differences(replace(near, **changes), honest.images[row.cell], again, code)
        assert next(iter(changes)) in fault.fault
    assert list(differences(replace(near, hardware=row.hardware), honest.images[row.cell], again, code))


@pytest.fixture(scope="module")
def agains(honest):
    """What each cell gives when it is run again, which a test of its own shows to be the same bits."""
    return {row.cell: Result(row, content.images(honest.images[row.cell])) for row in honest.rows}


def other(value, drawn):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + drawn.choice([-1, 1, 7]) if value else 1
    if isinstance(value, str):
        return value + "x"
    return value * drawn.choice([0.5, 0.999, 1.001, 2.0]) if value else drawn.choice([1e-9, 0.25])


@settings(max_examples=25)
@given(number=st.integers(0, 15), column=st.integers(0, 10**6), in_images=st.booleans(), seed=st.integers(0, 99))
def test_any_single_change_of_a_figure_is_found(honest, agains, tmp_path_factory, number, column, in_images, seed):
    drawn, row = random.Random(seed), honest.rows[number]
    if in_images:
        header, *lines = [line.split(",") for line in honest.images[row.cell].splitlines()]
        filled = [(y, x) for y, line in enumerate(lines) for x, text in enumerate(line) if text]
        y, x = filled[column % len(filled)]
        held = lines[y][x]
        value = {"True": "False", "False": "True"}.get(held)
        read = int if header[x] in ("truth", "reconstruction") else float
        lines[y][x] = value or repr(other(read(held), drawn))
        text = "\n".join(",".join(line) for line in [header, *lines]) + "\n"
        changed = replace(honest, images={**honest.images, row.cell: text})
        tampered = row
    else:
        names = [name for name in FIGURES if getattr(row, name) is not None and name != "status"]
        name = names[column % len(names)]
        tampered = replace(row, **{name: other(getattr(row, name), drawn)})
        changed = replace(honest, rows=[tampered if each is row else each for each in honest.rows])
    file = tmp_path_factory.mktemp("changed") / "rows.zip"
    file.write_bytes(content.written(changed, "0.1.0"))
    second = differences(tampered, changed.images[row.cell], agains[row.cell], honest.codes[row.cell])
    assert [*check(file).faults, *second]
