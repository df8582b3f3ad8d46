"""Of several that want to do one thing, one does it; what a process that is gone has claimed is taken over."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from gibench.result import Row
from gibench.results import Results
from gibench.results.claims import LEASE, claim, session
from gibench.results.merge import merge

CLAIMER = """
import sys
from gibench.results import Results
results = Results(sys.argv[1], create=True)
held = [number for number in range(200) if results.claim(f"{number:016x}")]
print(*held, flush=True)
sys.stdin.read()
"""


def claimer(folder):
    return subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results", create=True)


def test_a_claim_is_given_once_until_it_is_released(results):
    held = results.claim("a")
    assert (held is None, results.claim("a"), results.claim("b") is None) == (False, None, False)
    held.release()
    with results.claim("a"):
        assert results.claim("a") is None
    assert results.claim("a")


def test_processes_share_what_there_is_and_take_over_what_one_that_was_killed_had(results):
    claimers = [claimer(results.root) for _ in range(3)]
    held = [set(map(int, each.stdout.readline().split())) for each in claimers]
    assert sum(map(len, held)) == 200  # none twice
    assert set.union(*held) == set(range(200))
    assert not any(results.claim(f"{number:016x}") for number in range(200))
    os.kill(claimers[0].pid, signal.SIGKILL)
    claimers[0].wait()
    assert {number for number in range(200) if results.claim(f"{number:016x}")} == held[0]
    claimers[1].communicate("")  # ends by itself
    assert {number for number in range(200) if results.claim(f"{number:016x}")} == held[1]
    claimers[2].communicate("")
    claimers[0].stdin.close()
    claimers[0].stdout.close()


def test_of_several_that_take_over_at_once_one_wins(results):
    me = session(results.root)
    folder = results.folder / ".claims"
    folder.mkdir()
    for name in map(str, range(50)):
        (folder / f"{name}.0").write_text("f" * 32)  # of a session that is gone
    won = []

    def take():
        won.extend(name for name in map(str, range(50)) if claim(folder, name, me))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(map(str, range(50)))


def elsewhere(results, age):
    """The session of a process on another machine, whose last sign of life is so old; gives its name."""
    me = session(results.root)
    results.claim("a")  # makes the folder
    file = results.root / ".sessions" / ("e" * 32)
    file.write_text(json.dumps({"machine": "another", "process": os.getpid(), "born": "1"}))
    now = (results.root / ".sessions" / me.name).stat().st_mtime
    os.utime(file, (now - age, now - age))
    return file.name


@pytest.mark.parametrize(("age", "is_held"), [(0, True), (LEASE / 2, True), (2 * LEASE, False)])
def test_a_process_on_another_machine_has_a_lease(results, age, is_held):
    (results.folder / ".claims").mkdir()
    (results.folder / ".claims" / "b.0").write_text(elsewhere(results, age))
    assert (results.claim("b") is None) is is_held


def test_the_number_of_a_process_that_is_used_again_is_another_process(results):
    me = session(results.root)
    file = results.root / ".sessions" / ("e" * 32)
    mine = json.loads((results.root / ".sessions" / me.name).read_text())
    file.write_text(json.dumps(mine))
    assert me.is_alive(file.name)
    file.write_text(json.dumps(mine | {"born": "1"}))
    assert not me.is_alive(file.name)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_session_or_a_claim_that_was_cut_off_counts_until_its_lease_is_over(results, content):
    me = session(results.root)
    file = results.root / ".sessions" / ("e" * 32)
    file.write_text(content)
    assert me.is_alive(file.name)
    os.utime(file, (0, 0))
    assert not me.is_alive(file.name)
    results.claim("a").release()
    (results.folder / ".claims" / "b.0").touch()
    assert results.claim("b") is None
    os.utime(results.folder / ".claims" / "b.0", (0, 0))
    with results.claim("b"):
        pass
    assert list((results.folder / ".claims").iterdir()) == []


def test_merging_takes_what_is_missing_or_was_unfinished(tmp_path, make_result):
    here, first, second = (Results(tmp_path / name, create=True) for name in ("here", "first", "second"))
    other = Results(tmp_path / "second", "o/ther", create=True)
    kept = here.save(make_result(cell="0" * 16))
    here.save(make_result(cell="1" * 16, status="timeout"))
    first.save(make_result(cell="0" * 16))
    better = first.save(make_result(cell="1" * 16))
    second.save(make_result(cell="1" * 16, status="failed"))
    new = second.save(make_result(cell="2" * 16))
    there = other.save(make_result(cell="3" * 16))
    found = merge(here.root, [first.root, second.root])
    assert found == (3, 2)
    assert {row.cell: row for row in here.rows(Row)} == {row.cell: row for row in (kept, better, new)}
    assert Results(here.root, "o/ther").rows(Row) == [there]
    assert here.paths(new.cell)["grid"]
    assert merge(here.root, [first.root, second.root]) == (0, 5)
