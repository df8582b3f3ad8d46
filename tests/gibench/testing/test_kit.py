"""The conformance kit: what keeps to its contract passes, and every fault is found by the check that is for it."""

import json
import re

import pytest

from gibench.errors import UsageError
from gibench.registry import GROUPS, entries
from gibench.testing import conformance, findings, subject
from gibench.testing.kit import about, checks

SLOW = ("processes",)  # starts worker processes


@pytest.fixture(autouse=True)
def unfit(faulty_site, monkeypatch):
    monkeypatch.syspath_prepend(str(faulty_site))


def faults(kind, spec, **home):
    wanted = [name for name in checks(kind) if name not in SLOW]
    return {each.check: each.detail for each in findings(kind, spec, wanted, **home) if each.outcome == "fault"}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("attack", "Fit"), ("defense", "FitDefense"), ("dataset", "FitDataset"), ("model", "FitModel")],
)
def test_what_keeps_to_its_contract_passes(kind, spec):
    assert faults(kind, spec) == {}


@pytest.mark.parametrize(
    ("kind", "spec", "check", "detail"),
    [
        ("attack", "Undocumented", "settings", "its setting secret has no description"),
        ("attack", "Misshapen", "shapes", r"the attack returned images of shape \[4, 64\]"),
        ("attack", "Raw", "pixels", "were outside .0, 1. and clamped: return pixels, which observation.denormalize"),
        ("attack", "Restless", "seeded", "two runs from one seed give different images"),
        ("attack", "OfTheCpu", "device", "expected all tensors on one device"),
        ("attack", "Scribbles", "observation", "it wrote over observation.update.tensors.1.weight: work on a copy"),
        ("attack", "Leaves", "process", "it left changed in its process: default dtype"),
        ("attack", "Prints", "process", "it prints on standard output .'hello"),
        ("attack", "Peeks", "truth", "it returned a private image though it was shown an update of noise"),
        ("attack", "Crashes", "models", "it fails on model=lenet .*: say in `supports` why it cannot be applied"),
        ("attack", "Shy", "smallest", "ValueError: too few"),
        ("attack", "Guesses", "home", "it finds nothing: .* name a scenario .*, or set `control = True`"),
        ("defense", "Idle", "applied", "it defends nothing in its home scenario"),
        ("defense", "Writes", "inputs", r"it wrote over batches\[0\].inputs: work on a copy"),
        ("defense", "Divides", "nobody", "the update of no example holds NaN or infinity"),
        ("defense", "Ambient", "process", "it left changed in its process: torch's random state"),
        ("defense", "Claims", "guarantee", "it states an epsilon without delta, accountant and sampling"),
        ("dataset", "Leaks", "apart", "1025 private images are in the public split too"),
        ("dataset", "Shuffles", "fixed", "private.images differs from one load to the next"),
        ("model", "Same", "seeded", "networks of different seeds have the same weights"),
        ("model", "Small", "sizes", r"it fails on images of shape \[1, 1, 1\] .*: raise a UsageError there"),
        ("model", "Held", "device", "expected all tensors on one device"),
    ],
)
def test_a_fault_is_found_by_the_check_that_is_there_for_it(kind, spec, check, detail):
    (found,) = findings(kind, spec, [check])
    assert found.outcome == "fault"
    assert re.search(detail, found.detail), found.detail


def test_an_attack_that_never_ends_is_found_at_once(monkeypatch):
    monkeypatch.setattr(subject, "PATIENCE", 0.2)
    (found,) = findings("attack", "Deaf", ["deadline"])
    assert found.detail.startswith("it still ran 0.2 s after its deadline: ask context.expired() now and then")


@pytest.mark.slow  # starts worker processes
def test_what_depends_on_the_process_is_found():
    assert [each.outcome for each in findings("attack", "Fit", ["processes"])] == ["ok"]
    (found,) = findings("attack", "Homebound", ["processes"])
    assert found.detail.startswith("another process gives other images")


def test_as_a_test_each_check_is_a_case():
    test = conformance("dataset", "Leaks")
    (mark,) = test.pytestmark
    assert mark.args == ("check", list(checks("dataset")))
    test("images")
    with pytest.raises(
        AssertionError, match=r"apart \(Has no private image.*\): 1025 private images are in the public"
    ):
        test("apart")
    with pytest.raises(pytest.skip.Exception, match="`builds_on_meta` is not set"):
        conformance("model", "Small")("meta")


def test_the_program_prints_what_each_check_found(call):
    code, out, err = call("check", "model", "FitModel")
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", f"{name}:"] for name in checks("model")]
    code, out, _ = call("check", "model", "Held", "--json")
    found = {each["check"]: each["outcome"] for each in json.loads(out)}
    assert (code, found["logits"], found["device"]) == (1, "ok", "fault")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("colour", "red"), "'colour' is no kind of plugin: there are attack, defense, dataset, model"),
        (("attack", "Fitt"), "unknown attack 'Fitt' (did you mean 'Fit'?)"),
        (("attack", "Fit", "--home", "speed=3"), "--home speed=3 is no axis and value: write it as batch_size=1"),
        (("attack", "Fit", "--home", "batch_size=0"), "batch_size=0 is refused"),
        (("attack", "Fit", "--home", "model=mlq"), "unknown model 'mlq'"),
    ],
)
def test_a_wrong_request_is_no_fault_of_the_plugin(call, arguments, complaint):
    code, out, err = call("check", *arguments)
    assert (code, out) == (2, "")
    assert complaint in err


def test_a_check_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="there is no check 'speed' of models: there are settings, logits"):
        list(findings("model", "FitModel", ["speed"]))


@pytest.mark.parametrize("kind", GROUPS)
def test_every_check_says_what_it_is_for(kind):
    assert all(about(check).endswith(".") for check in checks(kind).values())


CHEAP = {
    "attack": ["random", "mean-image", "wrong-gradient:attack=analytic", "analytic", "spear"],
    "defense": ["none", "clip", "dp", "fedavg", "noise", "pruning", "quantize"],
    "dataset": ["digits"],
    "model": ["linear", "mlp", "lenet"],
}


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, specs in CHEAP.items() for spec in specs])
def test_the_built_ins_pass(kind, spec):
    assert faults(kind, spec) == {}


COSTLY = {
    ("attack", "spearpp"): {},
    ("attack", "layer-pair"): {},
    ("attack", "april"): {"model": "vit-tiny:patch=4,width=48,depth=2,heads=1", "batch_size": 1},
    ("attack", "token-span"): {"model": "vit-tiny:patch=4,width=48,depth=2,heads=1", "batch_size": 2},
    ("attack", "r-gap"): {"model": "lenet", "batch_size": 1},
    ("attack", "gradinversion:max_iterations=100"): {"batch_size": 1},
    ("attack", "cocktailparty:max_iterations=200"): {},
    ("attack", "spearpp-pruned"): {"defense": "pruning:sparsity=0.3"},
    ("attack", "spearpp-quantized"): {"defense": "quantize", "model": "mlp:width=200,depth=2"},
    ("attack", "spearpp-local-steps"): {"defense": "fedavg:epochs=2"},
    ("attack", "dlg:max_iterations=30"): {"model": "lenet", "batch_size": 1},
    ("attack", "dlg-adaptive:max_iterations=30"): {"model": "lenet", "batch_size": 1},
    ("attack", "idlg:max_iterations=30"): {"model": "lenet", "batch_size": 1},
    ("attack", "invertinggradients:max_iterations=100"): {"batch_size": 1},
    ("attack", "invertinggradients-adaptive:max_iterations=100"): {"batch_size": 1},
    ("attack", "modern:max_iterations=100"): {"batch_size": 1},
    ("attack", "sme:max_iterations=100"): {"batch_size": 1, "defense": "fedavg:epochs=2"},
    ("dataset", "photos"): {},
    ("dataset", "hostile"): {},
    ("dataset", "lfw"): {},
    ("model", "convnet"): {},
    ("model", "resnet18"): {},
    ("model", "resnet18:norm=group"): {},
    ("model", "lenet5"): {"dataset": "photos"},
    ("model", "resmlp"): {},
    ("model", "mlp:activation=gelu"): {},
    ("model", "fedavg-cnn"): {},
    ("model", "strided-cnn:width=100"): {},
    ("model", "vgg11"): {"dataset": "photos"},
    ("model", "vgg11:batch_norm=true"): {"dataset": "photos"},
    ("model", "vit-tiny:depth=2"): {},
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "spec"), COSTLY)
def test_the_costly_built_ins_pass(kind, spec):
    assert faults(kind, spec, **COSTLY[kind, spec]) == {}


def test_no_built_in_is_forgotten_but_those_that_need_files():
    asked = {(kind, spec) for kind, specs in CHEAP.items() for spec in specs} | COSTLY.keys()
    checked = {(kind, spec.partition(":")[0]) for kind, spec in asked}
    ours = {(kind, entry.name) for kind in GROUPS for entry in entries(kind) if entry.distribution == "gibench"}
    needy = {("dataset", name) for name in ("folder", "cifar10", "cifar100", "mnist", "fashion-mnist")}
    needy.add(("model", "module"))
    assert checked == ours - needy
