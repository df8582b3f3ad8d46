"""The program itself: version, help, errors."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest


def test_the_version_is_that_of_the_distribution(call):
    assert call("--version") == (0, f"gibench {version('gibench')}\n", "")


def test_help_names_every_verb_and_imports_no_torch():
    code = (
        "import sys\nfrom gibench.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f" {verb} " in done.stdout for verb in ("list", "run", "sweep", "leaderboard", "show", "doctor"))
    assert done.stderr == "False\n"


@pytest.mark.parametrize("verb", ["list", "run", "sweep"])
def test_every_verb_explains_itself(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert f"gibench {verb}" in out


def test_an_unknown_verb_is_a_usage_error_that_shows_the_nearest(call):
    code, out, err = call("rum")
    assert (code, out) == (2, "")
    assert "Did you mean 'run'?" in err


@pytest.mark.usefixtures("workplace")
def test_an_error_that_nobody_foresaw_is_one_line_and_exit_code_1(call, monkeypatch):
    from gibench.experiment import load

    load.cache_clear()
    monkeypatch.setattr("skimage.data.astronaut", None)
    code, out, err = call("run", "--attack", "random")
    assert (code, out) == (1, "")
    assert err == "error: TypeError: 'NoneType' object is not callable: run again with --debug to see where\n"


@pytest.mark.usefixtures("workplace")
def test_on_a_terminal_progress_is_drawn_beside_the_json(call, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = call("run", "--attack", "random", "--model", "mlp:width=9", "--batch-size", "2", "--json")
    assert code == 0
    assert json.loads(out)[0]["status"] == "ok"
    assert "\x1b[" in err
    assert "\x1b[" not in out
