"""`gibench list`: names from metadata alone, details on request, broken plugins as warnings."""

import inspect
import json
import subprocess
import sys
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest

from gibench.cli.summary import summary
from gibench.registry import GROUPS, Entry, entries, load

HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "pydantic",
    "mlflow",
    "yaml",
    "skimage",
    "gibench.attack",
    "gibench.attacks.controls",
)


def test_the_plain_list_imports_nothing_heavy():
    code = (
        "import sys\nfrom gibench.cli import main\ntry:\n    main(['list'])\n"
        f"finally:\n    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "spearpp" in done.stdout
    assert done.stderr == "[]\n"


def test_the_program_lists_every_kind_with_its_sources(program):
    process = program("list")
    out, err = process.communicate(timeout=3600)
    assert (process.returncode, err) == (0, "")
    headings = [line for line in out.splitlines() if not line.startswith(" ")]
    assert headings == ["attacks", "defenses", "datasets", "models", "suites"]
    (line,) = [line for line in out.splitlines() if line.startswith("  mean-image ")]
    assert line.endswith(f" (gibench {version('gibench')})")


@pytest.mark.parametrize("kind", GROUPS)
def test_each_is_listed_with_the_first_paragraph_of_its_docstring(call, kind):
    lines = dict(line.split(maxsplit=1) for line in call("list", f"{kind}s").out.splitlines()[1:])
    for entry in entries(kind):
        paragraph = " ".join(inspect.getdoc(load(kind, entry.name)).split("\n\n")[0].split())
        assert lines[entry.name] == f"{paragraph} (gibench {version('gibench')})"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('class It:\n    """One."""', "One."),
        ('class It:\n    """One\n    and more.\n\n    No more."""', "One and more."),
        ("class It:\n    pass", None),
        ('class Other:\n    """One."""', None),
        ("class It:\n     ", None),
        ("It = 1", None),
        ("from .other import That as It", "That."),
        ("from other_of_it import That as It", None),
        ("from . import It", None),
        ("from .itself import It", None),
        ("class It(:", None),
        ("\0", None),
        ("# -*- coding: no-such -*-", None),
        ("raise SystemExit", None),
    ],
)
def test_a_source_that_does_not_tell_has_no_line(tmp_path, monkeypatch, source, expected):
    package = tmp_path / "package_of_it"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    (package / "itself.py").write_text(source)
    (package / "other.py").write_text('class That:\n    """That."""')
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("it", "package_of_it.itself:It", "gibench.attacks")
    assert summary(Entry("attack", "it", "its", "1", point)) == expected
    assert "package_of_it" not in sys.modules


@pytest.mark.parametrize("value", ["no_such_package:It", "package.no.such:It", "a b", "", "sys:It", "math:It"])
def test_an_entry_point_that_leads_nowhere_has_no_line(value):
    assert summary(Entry("attack", "it", "its", "1", EntryPoint("it", value, "gibench.attacks"))) is None


def test_on_a_terminal_the_lines_are_as_wide_as_it(call, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    out = call("list").out
    assert 60 < max(map(len, out.splitlines())) <= 70
    assert "does " in out


def test_suites_are_listed_with_what_they_are_for(call):
    code, out, err = call("list", "suites")
    assert (code, err, out.splitlines()[0]) == (0, "", "suites")
    assert ["smoke", "The main job in small, under a minute"] in [line.split(maxsplit=1) for line in out.splitlines()]
    described = {suite["name"]: suite for suite in json.loads(call("list", "suites", "--json").out)}
    assert Path(described["smoke"]["file"]).name == "smoke.yaml"


@pytest.mark.parametrize("kind", ["attacks", "defenses", "datasets", "models"])
def test_one_kind_is_listed_alone(call, kind):
    code, out, err = call("list", kind)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [kind]


def test_a_name_shows_settings_defaults_and_references(call):
    code, out, _ = call("list", "dp")
    assert code == 0
    assert out.startswith("defense dp (gibench ")
    assert "references: Abadi et al." in out
    assert "    width=200  [int >= 1 <= 1000000]  neurons a hidden layer" in call("list", "mlp").out.splitlines()


def test_a_name_shows_what_must_be_known(call):
    assert "requires: prior" in call("list", "mean-image").out


def test_json_describes_every_plugin_and_is_all_there_is_on_standard_output(call):
    code, out, err = call("list", "attacks", "--json")
    described = {item["name"]: item for item in json.loads(out)}
    assert (code, err) == (0, "")
    assert described["mean-image"]["requires"] == ["prior"]
    assert described["mean-image"]["error"] is None


def test_json_of_one_name_has_its_settings_as_specs_write_them(call):
    (described,) = json.loads(call("list", "mlp", "--json").out)
    assert described["settings"]["width"] == {
        "type": "int >= 1 <= 1000000", "default": "200", "description": "neurons a hidden layer",
    }  # fmt: skip


@pytest.mark.usefixtures("plugins")
def test_other_distributions_are_listed_beside_the_built_ins(call):
    (line,) = [line for line in call("list", "attacks").out.splitlines() if line.startswith("  refuses ")]
    assert line.endswith(" (gibench-misbehaving 1.2.3)")
    assert "needs=a miracle  [str]  what it asks for" in call("list", "refuses").out


def test_an_unknown_name_says_what_exists(call):
    code, out, err = call("list", "nobody")
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: nothing is called 'nobody': there are the kinds attacks, defenses, datasets, models, suites, "
    )
    assert "mean-image" in err


def test_two_names_are_refused(call):
    code, _, err = call("list", "dp", "none")
    assert code == 2
    assert "takes one kind or name, not dp none" in err


@pytest.fixture
def broken(broken_site, monkeypatch):
    monkeypatch.syspath_prepend(str(broken_site))


@pytest.mark.usefixtures("broken")
def test_a_broken_and_a_duplicate_plugin_are_one_warning_each(call):
    code, out, err = call("list")
    clash, missing = err.splitlines()
    assert code == 0
    assert clash == (
        "warning: the attack 'random' of gibench-broken 0.0.7 is hidden by gibench's own: give it another name"
    )
    assert missing == (
        "warning: attack 'not-installed' of gibench-broken 0.0.7 cannot be used: "
        "its package 'gibench_no_such_package' is not installed"
    )
    assert "import-fails" in out


@pytest.mark.usefixtures("broken")
def test_json_holds_the_error_of_a_broken_plugin_and_the_rest(call):
    code, out, _ = call("list", "--json")
    errors = {(item["name"], item["distribution"]): item["error"] for item in json.loads(out)}
    assert code == 0
    assert "RuntimeError: an old library" in errors["import-fails", "gibench-broken"]
    assert "is not a subclass of" in errors["no-attack", "gibench-broken"]
    assert "is hidden by gibench's own" in errors["random", "gibench-broken"]
    assert errors["random", "gibench"] is None
    assert errors["mean-image", "gibench"] is None


@pytest.mark.usefixtures("broken")
def test_a_broken_plugin_asked_for_by_name_is_an_error(call):
    code, out, err = call("list", "import-fails")
    assert code == 1
    assert (
        "error: attack 'import-fails' of gibench-broken 0.0.7 cannot be imported: RuntimeError: an old library" in out
    )
    assert "printed on import" in err
