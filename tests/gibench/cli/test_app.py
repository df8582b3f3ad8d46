"""The program itself: version, help, errors."""

import io
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import gibench
from gibench.cli.app import app, main

COMMAND = typer.main.get_command(app)
PROGRAM = str(Path(sys.executable).with_name("gibench"))
SMALL = ("--attack", "random", "--model", "mlp:width=9", "--batch-size", "2", "--device", "cpu")


def run(*arguments, folder, **environment):
    """The real program, with bytes as its output."""
    command = [PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, check=False)


def test_the_version_is_that_of_the_distribution(call):
    assert call("--version") == (0, f"gibench {version('gibench')}\n", "")
    assert gibench.__version__ == version("gibench")


def test_python_m_is_the_program(tmp_path):
    command = [sys.executable, "-m", "gibench", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"gibench {version('gibench')}\n"


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom gibench.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    print([name for name in ('torch', 'pydantic', 'rich') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f" {verb} " in done.stdout for verb in ("list", "run", "sweep", "leaderboard", "show", "doctor"))
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("width", ["80", "40"])
@pytest.mark.parametrize("verb", [None, *COMMAND.commands])
def test_help_is_whole_at_any_width(call, monkeypatch, verb, width):
    monkeypatch.setenv("COLUMNS", width)
    code, out, err = call(*filter(None, (verb, "--help")))
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "..." not in out.replace("COMMAND [ARGS]...", "").replace("{FOLDER}...", "")
    assert max(map(len, out.splitlines())) <= max(int(width), 50)  # typer goes no narrower
    without_breaks = "".join(out.split())
    command = COMMAND.commands[verb] if verb else COMMAND
    texts = [command.help, *(each.help for each in command.params)]
    texts += [each.show_default for each in command.params if isinstance(each.show_default, str)]
    texts += [each.help.split("\n\n")[0] for each in COMMAND.commands.values()] if verb is None else []
    for text in texts:
        assert "".join(text.split()) in without_breaks


def test_a_shell_is_told_how_words_go_on(tmp_path):
    words = {"COMP_WORDS": "gibench l", "COMP_CWORD": "1"}
    done = run(folder=tmp_path, _GIBENCH_COMPLETE="complete_bash", **words)
    assert done.stdout.decode().split() == ["list", "leaderboard"]
    options = run(folder=tmp_path, _GIBENCH_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="gibench run --batch")
    assert b"--batch-size" in options.stdout


@pytest.fixture
def japanese(tmp_path, store_file):
    """A working folder with images in a folder whose name cp1252 does not hold."""
    folder = tmp_path / "写真"
    folder.mkdir()
    for number, pixels in enumerate(np.random.RandomState(0).randint(0, 256, (30, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "gibench.db").write_bytes(store_file.read_bytes())
    return tmp_path


@pytest.fixture
def call_encoded(japanese, monkeypatch):
    """Call `main` in this process on streams of an encoding, as strict as Python makes them."""
    monkeypatch.chdir(japanese)

    def call(*arguments, encoding):
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as end:
                main([*arguments, "--executor", "local"])
        for stream in streams.values():
            stream.flush()
        return end.value.code or 0, *(stream.buffer.getvalue() for stream in streams.values())

    return call


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_name_that_the_streams_cannot_hold_loses_no_result(call_encoded, encoding):
    command = ("run", *SMALL, "--dataset", "folder:path=写真")
    code, out, err = call_encoded(*command, encoding=encoding)
    assert (code, "Error" in err.decode(encoding)) == (0, False)
    out = out.decode("utf-8" if encoding == "utf-8" else "ascii")
    assert ("写真; split" if encoding == "utf-8" else r"\u5199\u771f; split") in out
    assert [line.split() for line in out.splitlines() if line.startswith("random")]
    _, rows, _ = call_encoded(*command, "--json", encoding="ascii")
    assert "写真" in json.loads(rows)[0]["dataset"]


def test_a_name_that_the_programs_streams_cannot_hold_is_shown_with_backslashes(tmp_path):
    refused = run("list", "写真", folder=tmp_path, PYTHONIOENCODING="cp1252")
    assert refused.returncode == 2
    assert rb"nothing is called '\u5199\u771f'" in refused.stderr


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252", "utf-8"])
def test_bytes_that_are_no_utf8_are_refused_in_one_line(tmp_path, encoding):
    done = run("list", os.fsdecode(b"caf\xe9"), folder=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert rb"nothing is called 'caf\udce9'" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        command = [PROGRAM, "list"]
        done = subprocess.run(command, cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""


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


@pytest.mark.parametrize("verb", [("list",), ("leaderboard",), ("doctor", "--help")])
def test_a_closed_standard_output_leads_nowhere(verb, tmp_path):
    (tmp_path / "gibench-results" / "gibench").mkdir(parents=True)
    done = subprocess.run(
        ["sh", "-c", f"{PROGRAM} {' '.join(verb)} >&- <&-"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("verb", [("list",), ("list", "--json"), ("leaderboard",), ("leaderboard", "--format", "csv")])
def test_a_full_standard_output_is_told_in_a_line(verb, tmp_path):
    (tmp_path / "gibench-results" / "gibench").mkdir(parents=True)
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, *verb], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False)
    told = b"error: standard output cannot be written (No space left on device): make room, or let it go elsewhere\n"
    assert (done.returncode, done.stderr) == (1, told)
