"""`gibench run` from its options to the table, the store and the exit code."""

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from gibench.result import COLUMNS, Row
from gibench.results import Results
from gibench.tracking import Store

SMALL = ("--model", "mlp:width=20,depth=2", "--batch-size", "4", "--device", "cpu")
pytestmark = pytest.mark.usefixtures("plugins", "workplace")


def attacks(*names):
    return [part for name in names for part in ("--attack", name)]


def lasting(row):
    return {key: row[key] for key in COLUMNS if key not in ("runtime_s", "peak_memory_mb")}


def test_repeated_options_make_a_grid_whose_table_has_a_line_for_each(call):
    code, out, err = call("run", *attacks("random", "mean-image"), "--defense", "none", "--defense", "dp", *SMALL)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[:5] for line in lines if line[:1] in (["random"], ["mean-image"])] == [
        [attack, defense, "4", "0", "ok"] for defense in ("none", "dp") for attack in ("random", "mean-image")
    ]
    for head in ("mean PSNR dB", "SSIM", "LPIPS", "exact", "certified", "runtime s", "epsilon"):
        assert head in out
    assert "[4/4] mean-image | dp" in err


def test_seeds_share_a_line_with_their_means(call):
    _, out, _ = call("run", *attacks("random"), "--seed", "0-2", *SMALL)
    mean = sum(row.psnr_mean for row in Results().rows(Row)) / 3
    (line,) = [line.split() for line in out.splitlines() if "3 seeds" in line]
    assert line[:7] == ["random", "none", "4", "3", "seeds", "ok", f"{mean:.2f}"]


def test_the_table_says_where_the_grids_are_and_how_to_see_more(call, workplace):
    _, out, _ = call("run", *attacks("random"), *SMALL)
    lines = out.splitlines()
    grid = next(line for line in lines if line.endswith("seed 0") and "images.png" in line).split()[0]
    assert (workplace / grid).read_bytes().startswith(b"\x89PNG")
    assert "MLflow: mlflow ui --backend-store-uri sqlite:///gibench.db" in lines
    shown = next(line for line in lines if "gibench show" in line).split()[-1]
    assert [row.attack for row in Results().beginning(Row, shown)] == ["random"]


def test_the_hints_name_another_store_and_experiment(call, workplace, store_file):
    (workplace / "other.db").write_bytes(store_file.read_bytes())
    _, out, _ = call("run", *attacks("random"), *SMALL, "--tracking-uri", "sqlite:///other.db", "--experiment", "mine")
    assert "MLflow: mlflow ui --backend-store-uri sqlite:///other.db" in out
    assert out.rstrip().endswith("--tracking-uri sqlite:///other.db --experiment mine")
    assert len(Store(Row, "sqlite:///other.db", "mine").rows()) == len(Results(experiment="mine").rows(Row)) == 1


def test_false_certificates_have_a_column_when_there_are_any(call):
    assert "false certificates" in call("run", *attacks("claims"), *SMALL).out
    assert "false certificates" not in call("run", *attacks("random"), *SMALL).out


def test_json_is_one_array_of_rows_whatever_an_attack_prints(call):
    code, out, err = call("run", *attacks("prints", "returns-nan"), *SMALL, "--json")
    rows = json.loads(out, parse_constant=pytest.fail)  # NaN and infinity are no JSON
    assert code == 1
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert all(list(row) == [*COLUMNS, "run_id", "started"] for row in rows)
    assert "hello from the attack" in err


def test_a_dry_run_prints_the_cells_and_stores_nothing(call):
    code, out, err = call("run", *attacks("random", "hangs"), "--seed", "0-1", *SMALL, "--dry-run")
    assert (code, len(out.splitlines())) == (0, 4)
    assert out.splitlines()[0].endswith("  random | none | mlp:depth=2,width=20 | photos | batch 4 | seed 0")
    assert "4 cells" in err
    assert Results().rows(Row) == []


def test_a_dry_run_as_json_gives_the_keys_that_rows_will_have(call):
    cells = json.loads(call("run", *attacks("random"), *SMALL, "--dry-run", "--json").out)
    rows = json.loads(call("run", *attacks("random"), *SMALL, "--json").out)
    assert [cell["cell"] for cell in cells] == [row["cell"] for row in rows]


def test_misbehaving_attacks_leave_rows_with_reasons_and_exit_code_1(call):
    names = ("raises", "wrong-shape", "returns-nan", "exits", "random")
    code, stopped, _ = call("run", *attacks("hangs"), *SMALL, "--timeout", "0.05")
    assert code == 1
    code, out, _ = call("run", *attacks(*names), *SMALL)
    assert code == 1
    assert {row.attack: row.status for row in Results().rows(Row)} == {
        "raises": "failed", "wrong-shape": "failed", "returns-nan": "failed", "exits": "failed", "hangs": "timeout",
        "random": "ok",
    }  # fmt: skip
    assert "failed: ValueError: no luck today (raises | none" in out
    assert "timeout: the attack ran on past its deadline and was stopped: raise --timeout (hangs" in stopped


def test_nan_in_the_observed_gradient_is_a_failed_row(call):
    code, out, _ = call("run", *attacks("random"), "--defense", "poison", *SMALL)
    assert code == 1
    assert "failed: the observed gradient holds NaN or infinity at '1.weight'" in out


def test_a_skipped_row_has_its_reason_and_is_no_failure(call):
    code, out, _ = call("run", *attacks("refuses"), *SMALL)
    assert code == 0
    assert "skipped: this model is not a miracle (refuses | none" in out


def test_finished_cells_are_skipped_and_shown(call):
    first = json.loads(call("run", *attacks("random"), *SMALL, "--json").out)
    code, out, err = call("run", *attacks("random"), *SMALL, "--json")
    assert code == 0
    assert json.loads(out) == first
    assert "stored before" in err


def test_force_gives_the_same_images_and_metrics_bit_for_bit(call):
    command = ("run", *attacks("random", "global-rng"), "--defense", "dp", *SMALL, "--json")
    first = json.loads(call(*command).out)
    old = [Path(path).read_bytes() for row in first for path in Results().paths(row["cell"]).values()]
    second = json.loads(call(*command, "--force").out)
    assert [lasting(row) for row in first] == [lasting(row) for row in second]
    assert not {row["run_id"] for row in first} & {row["run_id"] for row in second}
    assert [Path(path).read_bytes() for row in second for path in Results().paths(row["cell"]).values()] == old


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "gibench run names no attack: add one"),
        (["--attack", "randon"], "unknown attack 'randon' (did you mean 'random'?): there are "),
        (["--attack", "random", "--defense", "wall"], "unknown defense 'wall': there are "),
        (["--attack", "random", "--dataset", "imagenet"], "unknown dataset 'imagenet': there are "),
        (["--attack", "random", "--model", "vit"], "unknown model 'vit': there are "),
        (["--attack", "random:speed=1"], "attack 'random' has no setting 'speed': it has none"),
        (["--attack", "random", "--defense", "dp:delta=2"], "defense 'dp': delta='2' is refused: "),
        (["--attack", "random", "--model", "mlp:width=-1"], "model 'mlp': width='-1' is refused: "),
        (["--attack", "random", "--knows", "everything"], "unknown knowledge 'everything': list some of "),
        (["--attack", "random", "--labels", "mixed"], "labels='mixed' is refused: "),
        (["--attack", "random", "--dtype", "float8"], "dtype='float8' is refused: "),
        (["--attack", "random", "--device", "tpu"], "device='tpu' is refused: "),
        (["--attack", "random", "--batch-size", "0"], "batch_size=0 is refused: "),
        (["--attack", "random", "--train-steps", "-1"], "train_steps=-1 is refused: "),
        (["--attack", "random", "--seed", "9-1"], "a range goes from a seed up to another"),
        (["--attack", "random", "--timeout", "0"], "timeout=0.0 is refused: "),
        (["--attack", "random", "--batch-size", "521"], "a batch of 521 is more than the 520 images"),
        (["--attack", "random", "--dataset", "folder:path=nowhere"], "nowhere: give the path of a directory"),
        (["--attack", "random", "--dataset", "folder:path='~nouser'"], "~nouser: give the path of a directory"),
        (["--attack", "random", "--dataset", "folder:path=" + "x" * 5000], "xxx: give the path of a directory"),
        (["--attack", "random", "--dataset", "mnist:root='~nouser'"], "refused: there is no such user here"),
        (["--attack", "random", "--defense", "noise:std=1e-320"], "std='1e-320' is refused: "),
        (["--attack", "random", "--defense", "noise:std='1e+308'"], "std='1e+308' is refused: "),
        (["--attack", "random", "--model", "mlp:width=99999999999999999999"], "is refused: "),
        (["--attack", "random", "--timeout", "1e308"], "timeout=1e+308 is refused: "),
        (["--attack", "random", "--train-steps", "9" * 23], "is refused: "),
        (["--attack", "random", "--jobs", "0"], "jobs='0' is refused: give a number from 1 to 1024, or auto"),
        (["--attack", "random", "--jobs", "²"], "jobs='²' is refused: "),
        (["--attack", "random", "--jobs", "1" * 5000], "is refused: give a number from 1 to 1024, or auto"),
        (["--attack", "random", "--memory", "0"], "memory=0.0 is refused: give the gigabytes"),
        (["--attack", "random", "--memory", "nan"], "memory=nan is refused: give the gigabytes"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_exit_code_2(call, options, complaint):
    code, out, err = call("run", *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert complaint in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("options", [["--speed", "1"], ["--batch-size", "many"], ["--attack"]])
def test_options_that_do_not_parse_have_exit_code_2(call, options):
    code, out, err = call("run", *options)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_debug_adds_the_traceback(call):
    code, _, err = call("run", "--attack", "nobody", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: unknown attack 'nobody'")


def test_results_that_cannot_be_written_are_told_before_anything_runs(call, workplace):
    (workplace / "file").write_text("no folder")
    code, out, err = call("run", *attacks("random"), *SMALL, "--results", "file/results")
    assert (code, out) == (2, "")
    assert err == (
        f"error: the results folder {workplace}/file/results cannot be made: Not a directory: see --results, or "
        "GIBENCH_RESULTS\n"
    )


@pytest.mark.parametrize("uri", ["mlruns", "http://host:port"])
def test_an_address_that_is_none_is_told_before_anything_runs(call, workplace, uri):
    code, out, err = call("run", *attacks("random"), *SMALL, "--tracking-uri", uri)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert not Path("gibench-results").exists()


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("sqlite:///file/gibench.db", "File exists"),
        ("sqlite:///file", "file is not a database"),
        ("http://127.0.0.1:9", "no server answers there"),
        ("sqlite:///foreign.db", "is a database of something else"),
    ],
)
def test_a_store_that_cannot_be_used_costs_one_warning(call, workplace, uri, cause):
    (workplace / "file").write_text("this is a text, and no database, as everybody can see" * 20)
    with sqlite3.connect(workplace / "foreign.db") as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    code, out, err = call("run", *attacks("random"), *SMALL, "--tracking-uri", uri, "--json")
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert code == 0
    assert cause in warning
    assert warning.endswith(f"; rows are kept in {workplace}/gibench-results, and gibench sync delivers them")
    assert [row.as_dict() for row in Results().rows(Row)] == json.loads(out)
    assert len(err.splitlines()) == 2

    code, _, err = call("sync")
    assert (code, err) == (0, "1 rows delivered to sqlite:///gibench.db\n")
    assert len(Store(Row).rows()) == 1
    assert call("sync").err == "0 rows delivered to sqlite:///gibench.db\n"


def test_every_row_and_picture_is_in_mlflow_when_the_command_ends(call):
    rows = json.loads(call("run", *attacks("random", "mean-image"), *SMALL, "--json").out)
    store = Store(Row)
    assert [row.cell for row in store.rows()] == [row["cell"] for row in rows]
    for row in store.rows():
        grid = Path(store.row(row.run_id)[1]["grid"])
        assert grid.read_bytes() == Path(Results().paths(row.cell)["grid"]).read_bytes()
        assert "gibench-artifacts" in grid.parts


def test_pictures_can_be_left_out(call):
    _, out, _ = call("run", *attacks("random"), *SMALL, "--no-pictures")
    (row,) = Results().rows(Row)
    assert Results().paths(row.cell)["grid"] is None
    assert sum(file.stat().st_size for file in (Results().folder / row.cell).iterdir()) < 10_000
    assert "image grids" not in out


def test_a_working_folder_that_mlflow_cannot_hold_costs_one_warning(call, workplace, monkeypatch):
    (workplace / "a%20b").mkdir()
    monkeypatch.chdir(workplace / "a%20b")
    code, out, err = call("run", *attacks("random"), *SMALL)
    assert code == 0
    assert "has '%20' in its path" in err
    assert "gibench-results/gibench/" in out
    assert call("leaderboard").code == 0
    assert [path.name for path in Path().iterdir()] == ["gibench-results"]
    assert not (workplace / "gibench-results").exists()


def test_ctrl_c_in_this_process_says_how_to_go_on(call):
    code, out, err = call("run", *attacks("random", "interrupts"), *SMALL)
    assert (code, out) == (130, "")
    assert "[1/2] random" in err
    assert "interrupted: what is finished is stored, and the same command goes on from there" in err


def wait_for(process, text):
    """Read what the program says until it says `text`."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the program ended without saying {text}")


def assert_nobody_works_in(folder):
    """No process is left there, at least after a while."""
    deadline = time.monotonic() + 3600
    while others := [process for process in Path("/proc").glob("[0-9]*") if works_in(process, folder)]:
        assert time.monotonic() < deadline, others
        time.sleep(0.1)


def works_in(process, folder):
    try:
        return process.name != str(os.getpid()) and (process / "cwd").readlink() == folder
    except OSError:
        return False


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_ended_keeps_its_finished_cells_and_goes_on_later(
    call, program, plugin_site, workplace, how, exit_code
):
    command = ("run", *attacks("random", "waits", "mean-image"), *SMALL, "--dataset", "digits")
    process = program(*command, site=plugin_site)
    wait_for(process, "[1/3]")  # the next cell waits by then, or will
    os.kill(process.pid, how)
    assert process.wait(timeout=3600) == exit_code
    assert_nobody_works_in(workplace)
    kept = Results().rows(Row)
    assert [row.attack for row in kept] == ["random"]

    (workplace / "go").touch()
    code, out, err = call(*command, "--json")
    assert code == 0
    assert "[1/3] random | none | mlp:depth=2,width=20 | digits | batch 4 | seed 0: stored before" in err
    assert [row["attack"] for row in json.loads(out)] == ["random", "waits:file=go", "mean-image"]
    assert json.loads(out)[0] == kept[0].as_dict()
    with sqlite3.connect(workplace / "gibench.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_stored_row_whose_files_are_gone_is_still_shown(call, workplace):
    call("run", *attacks("random"), *SMALL)
    Path(Results().paths(Results().rows(Row)[0].cell)["grid"]).unlink()
    code, out, _ = call("run", *attacks("random", "mean-image"), *SMALL)
    assert code == 0
    assert "no longer there:  random | none" in out


def test_a_damaged_row_is_named_and_run_again(call, workplace):
    first = json.loads(call("run", *attacks("random", "mean-image"), *SMALL, "--json").out)
    file = Results().folder / first[0]["cell"] / "result.json"
    file.write_text(file.read_text()[:100])
    code, out, err = call("leaderboard", "--json")
    assert code == 0
    assert f"warning: {file.parent} is damaged and left out" in err
    assert [row["cell"] for row in json.loads(out)] == [first[1]["cell"]]
    code, out, err = call("run", *attacks("random", "mean-image"), *SMALL, "--json")
    assert [lasting(row) for row in json.loads(out)] == [lasting(row) for row in first]
    assert err.count("stored before") == 1


def test_a_line_counts_how_its_seeds_ended_and_fails_as_grey(call, workplace):
    (workplace / "go").touch()
    call("run", *attacks("waits"), "--seed", "0", *SMALL)
    (workplace / "go").unlink()
    code, out, _ = call("run", *attacks("waits"), "--seed", "0-1", *SMALL, "--timeout", "0.05")
    (line,) = [line for line in out.splitlines() if "2 seeds" in line]
    assert code == 1
    assert "1 ok, 1 timeout" in line
    assert f"{sum(row.psnr_mean for row in Results().rows(Row)) / 2:.2f}" in line
