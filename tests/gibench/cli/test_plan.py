"""`--dry-run`, `--only`, `--shard` and `--limit` through the program."""

import json

import pytest
from torch import nn

from gibench import checks, experiment
from gibench.datasets.folder import Folder
from gibench.datasets.torchvision import CIFAR10
from gibench.models.mlp import MLP

SMALL = ("--model", "mlp:width=20,depth=2", "--batch-size", "4", "--device", "cpu")
pytestmark = pytest.mark.usefixtures("plugins", "workplace")


@pytest.fixture(autouse=True)
def _look_anew():
    for kept in (checks.at_hand, checks._check_batch, checks._check_defenses, checks._check_model):
        kept.cache_clear()


def attacks(*names):
    return [part for name in names for part in ("--attack", name)]


def fails(*arguments):
    raise AssertionError("this is no part of a plan")


def test_a_plan_says_what_is_done_and_how_long_the_rest_takes(call):
    options = (*attacks("random"), "--seed", "0-3", *SMALL)
    assert "4 cells, 0 done; how long the others take is not known" in call("run", *options, "--dry-run").err
    call("run", *options, "--limit", "3")
    code, out, err = call("run", *options, *attacks("mean-image"), "--dry-run")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == ["done", "-"] * 3 + ["-", "-"]
    assert "8 cells, 3 done; the others take about " in err
    assert "one after the other; 4 of them are like none that is stored" in err
    assert "0 done" in call("run", *options, "--dry-run", "--force").err


def test_a_plan_as_json(call):
    options = (*attacks("random"), "--seed", "0-1", *SMALL)
    call("run", *options, "--limit", "1")
    cells = json.loads(call("run", *options, "--dry-run", "--json").out)
    assert [(cell["seed"], cell["done"], cell["seconds"] > 0) for cell in cells] == [(0, True, True), (1, False, True)]


def test_a_plan_reads_downloads_and_builds_nothing_that_is_not_at_hand(call, workplace, monkeypatch):
    (workplace / "pictures").mkdir()
    (workplace / "pictures" / "one.png").touch()
    monkeypatch.setattr(CIFAR10, "load", fails)
    monkeypatch.setattr(Folder, "load", fails)
    monkeypatch.setattr(experiment, "build", fails)
    datasets = ("--dataset", "cifar10", "--dataset", "folder:path=pictures", "--dataset", "photos")
    models = ("--model", "resnet18", "--model", "mlp:width=3000", "--model", "odd:what=build")
    code, out, err = call("run", *attacks("random"), *datasets, *models, "--device", "cpu", "--dry-run")
    assert (code, len(out.splitlines())) == (0, 9)
    assert "not read for this plan, so batches and models are not checked against it: cifar10:root=" in err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--batch-size", "521"], "a batch of 521 is more than the 520 images"),
        (["--model", "mlp:width=1000000,depth=1000"], "parameters, which take 7"),
        (["--model", "convnet:width=1", "--dataset", "digits", "--defense", "dp:delta=0.5"], "delta"),
        (["--dataset", "folder:path=nowhere"], "there is no directory"),
        (["--only", "attack=spaerpp"], "unknown attack 'spaerpp' (did you mean 'spearpp'?)"),
        (["--only", "colour=red"], "--only has no axis 'colour'"),
        (["--shard", "0/2"], "--shard 0/2 is no share"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be_is_told_before_anything_runs(call, options, complaint, dry):
    code, out, err = call("run", *attacks("random"), "--device", "cpu", *options, *(["--dry-run"] if dry else []))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err


@pytest.mark.parametrize("utility", ["nope", "[digits, nope]", "folder"])
def test_a_plan_of_a_suite_checks_what_costs_are_measured_on(call, workplace, utility):
    (workplace / "suite.yaml").write_text(f"attack: random\ndevice: cpu\nutility: {utility}")
    code, out, err = call("sweep", "suite.yaml", "--dry-run")
    assert (code, out) == (2, "")
    assert err.startswith(("error: unknown dataset 'nope'", "error: the data set folder needs a directory"))


def test_checks_are_made_once_for_all_cells_that_share_what_they_depend_on(call, monkeypatch):
    made = []
    drawn, built = checks.batches.draw, MLP.build
    monkeypatch.setattr(checks.batches, "draw", lambda *rest: made.append("batch") or drawn(*rest))
    monkeypatch.setattr(MLP, "build", lambda *rest: made.append("model") or built(*rest))
    options = ("--seed", "0-199", "--batch-size", "4", "--batch-size", "8", "--defense", "none", "--defense", "dp")
    code, out, _ = call("run", *attacks("random", "mean-image"), *options, "--device", "cpu", "--dry-run")
    assert (code, len(out.splitlines())) == (0, 1600)
    assert sorted(made) == ["batch", "batch", "model"]


def test_the_networks_of_a_plan_take_no_memory(monkeypatch):
    built = []
    monkeypatch.setattr(nn.Linear, "__init__", _noting(nn.Linear.__init__, built))
    checks._check_model("photos", "mlp:depth=5,width=20000", "float32", "cpu", False)
    assert len(built) == 6
    assert all(layer.weight.is_meta for layer in built)


def _noting(init, built):
    def note(self, *arguments, **options):
        init(self, *arguments, **options)
        built.append(self)

    return note


def test_shares_run_each_cell_once_and_together_all(call, workplace):
    options = (*attacks("random", "mean-image"), "--seed", "0-2", *SMALL)
    seen = []
    for share in (1, 2, 3):
        code, out, _ = call("run", *options, "--shard", f"{share}/3", "--json")
        assert code == 0
        seen += [row["cell"] for row in json.loads(out)]
    assert len(set(seen)) == len(seen) == 6
    assert "6 cells, 6 done" in call("run", *options, "--dry-run").err


def test_a_share_without_cells_says_so(call):
    outcomes = [call("run", *attacks("random"), *SMALL, "--shard", f"{share}/2") for share in (1, 2)]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert sum("this share has no cells" in outcome.err for outcome in outcomes) == 1
    assert json.loads(call("run", *attacks("random"), *SMALL, "--shard", "1/1", "--json").out)


def test_the_end_sums_up(call):
    options = (*attacks("random", "refuses", "raises"), *SMALL)
    call("run", *options, "--limit", "1")
    assert "1 ok, 1 skipped, 1 failed (1 by an earlier call) of 3 cells in " in call("run", *options).err
