"""`gibench doctor` says what works and what is broken."""

import json

import pytest

from gibench.delivery import Delivery
from gibench.results import Results

CHECKS = ["versions", "device", "LPIPS self-test", "results folder", "tracking store"]
CHECKS += ["attacks", "defenses", "datasets", "models"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sound_installation_passes_and_nothing_is_made(call, here):
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    lines = dict(line.removeprefix("ok").strip().split(": ", 1) for line in out.splitlines())
    assert list(lines) == CHECKS
    assert "gibench 0." in lines["versions"]
    assert "scipy 1." in lines["versions"]
    assert lines["LPIPS self-test"].startswith("LPIPS v0.1 alex, off by at most")
    assert lines["results folder"] == f"none yet at {here}/gibench-results: the first run makes it"
    assert lines["tracking store"] == f"none yet at {here}/gibench.db: the first run makes it"
    assert "spearpp" in lines["attacks"]
    assert "clip, dp, fedavg, noise, none" in lines["defenses"]
    assert list(here.iterdir()) == []


def test_json_holds_the_same_checks(call, here, uri):
    code, out, err = call("doctor", "--json", "--tracking-uri", uri)
    assert (code, err) == (0, "")
    checks = json.loads(out)
    assert [check["check"] for check in checks] == CHECKS
    assert all(check["ok"] is True for check in checks)
    assert checks[4]["detail"] == f"{uri}, experiments Default, unused"


def test_the_results_folder_is_told_with_what_is_in_it_and_who_is_at_work(call, here, uri, make_result):
    results = Results(here / "kept", "one", create=True)
    results.save(make_result(cell="0" * 16))
    with Delivery(results, uri, None, pytest.fail, lambda message, fraction=None: None):
        pass
    Results(here / "kept", "two", create=True).save(make_result(cell="1" * 16))
    gone = {"machine": json.loads(next((here / "kept" / ".sessions").iterdir()).read_text())["machine"], "born": "1"}
    (here / "kept" / ".sessions" / ("f" * 32)).write_text(json.dumps(gone | {"process": 2**22}))
    before = sorted(here.rglob("*"))
    out = call("doctor", "--results", here / "kept", "--tracking-uri", uri).out
    assert (
        f"ok      results folder: {here}/kept, 2 cells, 1 of them not in MLflow yet (gibench sync delivers them), "
        "1 processes at work on it"
    ) in out.splitlines()
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(("place", "what"), [("notes.txt", "is no folder"), ("notes.txt/kept", "is no folder")])
def test_a_place_where_no_results_can_be_kept_is_broken(call, here, place, what):
    (here / "notes.txt").touch()
    code, out, _ = call("doctor", "--results", here / place)
    assert code == 1
    assert (
        f"BROKEN  results folder: results cannot be kept in {here}/{place}: {here}/notes.txt {what}: see --res" in out
    )


def test_a_store_that_cannot_be_used_is_broken(call, here):
    (here / "notes.db").write_text("no database " * 100)
    code, out, _ = call("doctor", "--tracking-uri", f"sqlite:///{here}/notes.db")
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert "tracking store" in line
    assert "file is not a database" in line


def test_the_store_of_the_environment_is_the_one_looked_at(call, here, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert f"ok      tracking store: {uri}, experiments Default, unused" in call("doctor").out.splitlines()


def test_a_working_folder_that_mlflow_cannot_hold_is_broken(call, here, monkeypatch):
    (here / "caf\udce9").mkdir()
    monkeypatch.chdir(here / "caf\udce9")
    code, out, _ = call("doctor")
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert "has a path whose bytes are no UTF-8: rename it" in line


def test_damaged_weights_are_broken(call, here, monkeypatch):
    monkeypatch.setattr("gibench.scoring.lpips.SHA256", "0" * 64)
    code, out, _ = call("doctor")
    assert code == 1
    assert "BROKEN  LPIPS self-test: the LPIPS weights" in out


def test_broken_plugins_are_named_and_the_others_are_still_checked(program, broken_site):
    """In a process of its own, as a user who has just installed them has."""
    doctor = program("doctor", "--json", site=broken_site)
    out, err = doctor.communicate(timeout=3600)
    assert doctor.returncode == 1
    assert err == "printed on import\n"
    found = {check["check"]: check["detail"] for check in json.loads(out) if "attack" in check["check"]}
    assert "mean-image" in found["attacks"]
    assert found["attacks"].split(", ").count("random") == 1
    assert "of gibench-broken 0.0.7 cannot be imported: RuntimeError: an old library" in found["attack import-fails"]
    assert "No module named 'gibench_no_such_package'" in found["attack not-installed"]
    assert "is not a subclass of gibench.attack.Attack" in found["attack no-attack"]
    assert "of gibench-broken 0.0.7 is hidden by gibench's own" in found["attack random"]
