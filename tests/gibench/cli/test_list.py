"""`gibench list`: names from metadata alone, details on request, broken plugins as warnings."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

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
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    headings = [line for line in out.splitlines() if not line.startswith(" ")]
    assert headings == ["attacks", "defenses", "datasets", "models"]
    assert ["mean-image", "gibench", version("gibench")] in [line.split() for line in out.splitlines()]


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
    assert "    width=200  [int >= 1]  neurons a hidden layer" in call("list", "mlp").out.splitlines()


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
        "type": "int >= 1", "default": "200", "description": "neurons a hidden layer",
    }  # fmt: skip


@pytest.mark.usefixtures("plugins")
def test_other_distributions_are_listed_beside_the_built_ins(call):
    lines = [line.split() for line in call("list", "attacks").out.splitlines()]
    assert ["refuses", "gibench-misbehaving", "1.2.3"] in lines
    assert "needs=a miracle  [str]  what it asks for" in call("list", "refuses").out


def test_an_unknown_name_says_what_exists(call):
    code, out, err = call("list", "nobody")
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: nothing is called 'nobody': there are the kinds attacks, defenses, datasets, models, "
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
    assert clash == "warning: attack 'random' is registered by gibench 0.1.0 and gibench-broken 0.0.7: uninstall one"
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
    assert "registered by gibench" in errors["random", "gibench"]
    assert errors["mean-image", "gibench"] is None


@pytest.mark.usefixtures("broken")
def test_a_broken_plugin_asked_for_by_name_is_an_error(call):
    code, out, err = call("list", "import-fails")
    assert code == 1
    assert (
        "error: attack 'import-fails' of gibench-broken 0.0.7 cannot be imported: RuntimeError: an old library" in out
    )
    assert "printed on import" in err
