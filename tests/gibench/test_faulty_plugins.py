"""Plugins that break their contract: each is blamed by name in one line that says what is due, and nobody else is."""

import pytest

from gibench import experiment
from gibench.errors import PluginError, UsageError
from gibench.registry import create, entries, find, load, resolve, shorten


@pytest.fixture
def run(faulty_site, run_one, monkeypatch):
    """A function that runs a small cell with faulty plugins among its choices; gives its status and reason."""
    monkeypatch.syspath_prepend(str(faulty_site))

    def run(attack="mean-image", **options):
        row = run_one(attack, **{"dataset": "digits", "model": "linear", "batch_size": 2} | options).row
        return row.status, row.reason

    return run


@pytest.fixture
def faulty(faulty_site, monkeypatch):
    monkeypatch.syspath_prepend(str(faulty_site))
    monkeypatch.setattr("gibench.experiment.load", experiment.load.__wrapped__)


@pytest.mark.filterwarnings("ignore:Field name")  # pydantic's own words on the same
@pytest.mark.parametrize(
    ("kind", "spec", "complaint"),
    [
        ("attack", "NoDefault", r"attack 'NoDefault' needs level=\.\.\.: it has no default"),
        ("attack", "NoDefault:level=high", "attack 'NoDefault': level='high' is refused"),
        (
            "attack",
            "Several:sizes='1,2'",
            r"sizes='1,2' is refused: .*; write it as JSON in quotes, as in key='\[1, 2\]'",
        ),
        (
            "attack",
            "OddSetting",
            "attack 'OddSetting' has a setting that no spec can hold .odd=.*: let it be bool, int",
        ),
        ("attack", "TensorSetting", "attack 'TensorSetting' has a setting that no spec can hold"),
        (
            "attack",
            "UnknownFact",
            "attack 'UnknownFact': it requires 'lables', which is no fact: use some of batch_size",
        ),
        ("attack", "FactAsText", "attack 'FactAsText': `requires` is 'labels', where a set of facts is due"),
        ("attack", "SettingsTaken", "'SettingsTaken' of gibench-faulty 1.0 has a setting 'settings', .* rename it"),
        ("attack", "RequiresTaken", "'RequiresTaken' of gibench-faulty 1.0 has a setting 'requires', .* rename it"),
        (
            "attack",
            "ReconstructTaken",
            "'ReconstructTaken' of gibench-faulty 1.0 has a setting 'rec.*', .* rename it",
        ),
        (
            "attack",
            "Exits",
            "'Exits' of gibench-faulty 1.0 cannot be imported: SystemExit: goodbye all: mend it",
        ),
        (
            "defense",
            "WrongHooks",
            "of gibench-faulty 1.0 names the hooks relase, but overrides release: leave",
        ),
        (
            "defense",
            "NoHook",
            "of gibench-faulty 1.0 overrides none of step, update, average, release, so it",
        ),
        ("defense", "HooksTaken", "'HooksTaken' of gibench-faulty 1.0 has a setting 'hooks', .* rename it"),
    ],
)
@pytest.mark.usefixtures("faulty")
def test_what_its_class_shows_is_refused_before_anything_runs(kind, spec, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        resolve(kind, spec)
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("faulty")
def test_settings_that_hold_several_values_are_json_in_specs():
    written = resolve("attack", "Several:sizes='[3, 4]'")
    assert resolve("attack", written) == written
    plugin = create("attack", written)
    assert (plugin.sizes, plugin.pair, plugin.by_name) == ([3, 4], (0.5, "a,'b"), {"a": 1})
    assert (plugin.names, plugin.nothing) == ({"a", "b"}, None)
    assert str(shorten("attack", written)) == "Several:sizes='[3, 4]'"


@pytest.mark.usefixtures("faulty")
def test_a_setting_without_a_default_stays_in_what_people_read():
    assert str(shorten("attack", resolve("attack", "NoDefault:level=0.5"))) == "NoDefault:level=0.5"


def test_a_setting_without_a_default_runs(run):
    assert run("NoDefault:level=0.5") == ("ok", None)


@pytest.mark.parametrize(
    ("attack", "status", "reason"),
    [
        ("SupportsTrue", "failed", "`supports` of SupportsTrue gave True, where None (it can) or a"),
        ("Bytes", "failed", "the attack returned images of torch.uint8 where floats in [0, 1] are due"),
        ("Normalised", "ok", "100.0% of the returned values, from "),
    ],
)
def test_what_an_attack_does_wrong_is_told_of_it(attack, status, reason, run):
    found = run(attack)
    assert found[0] == status
    assert found[1].startswith(reason)


@pytest.mark.parametrize("defense", ["Signs", "SignsOfSteps", "Signs+SignsOfSteps+fedavg:epochs=1"])
def test_the_hooks_of_a_defense_need_no_naming(defense, run):
    assert run(defense=defense) == ("ok", None)
    assert load("defense", "Signs").hooks == {"release"}


@pytest.mark.parametrize(
    ("defense", "reason"),
    [
        ("SupportsModel", "`supports` of SupportsModel gave True, where None"),
        ("Broken:what=step", "Broken gave NoneType in `step`, where a tensor a parameter by name is due"),
        ("Broken:what=update", "Broken gave Update in `update`, where a pair (Update, LocalTraining or None) is due"),
        ("Broken:what=average", "Broken gave dict in `average`, where an Update is due"),
        ("Broken:what=shape", "of shape [1, 64] at '1.weight' in `release`, where real numbers of shape [10, 64] is"),
        ("Broken:what=name", "Broken gave 'more' in `release`, where the names of parameters: 1.weight, 1.bias is due"),
        ("Broken:what=integers", "gave torch.int8 of shape [10, 64] at '1.weight' in `release`, where real numbers"),
        ("Broken:what=numpy", "Broken gave ndarray at '1.weight' in `release`, where real numbers of shape [10, 64]"),
        ("Broken:what=kind", "Broken gave the kind 'delta' in `release`, where one of gradient, weight_delta is due"),
    ],
)
def test_a_defense_that_gives_what_is_no_update_is_blamed_and_no_attack(defense, reason, run):
    status, found = run(defense=defense)
    assert status == "failed"
    assert found.startswith("computing the update, before any attack: ")
    assert reason in found


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("255", r"has a tuning split that has pixels from 0 to 255, where \[0, 1\] is due: divide 8-bit pixels by 255"),
        ("normalised", "has a tuning split that has pixels from -0.5 to 0.5"),
        ("grid", "has pixels off the 8-bit grid, where k/255 is due: round them"),
        ("nan", "has pixels from nan to nan"),
        ("double", "has images of torch.float64, where float32"),
        ("bytes", "has images of torch.uint8, where float32"),
        ("flat", r"has images of shape \[114, 64\], where \[N, C, H, W\]"),
        ("labels", "has labels from 1 to 10, where there are 10 classes"),
        ("floats", "has labels of torch.float32"),
        ("fewer", r"has labels of torch.int64 and shape \[113\] for 114 images"),
        ("pair", "has a tuning split that is no Split of tensors"),
        ("nothing", "loads NoneType, where Images is due"),
        ("mean", "has a mean that is not 1 finite numbers, one a channel"),
        ("std", "has a std that is not above 0"),
    ],
)
@pytest.mark.usefixtures("faulty")
def test_data_that_are_not_as_their_contract_says_are_refused(what, complaint):
    with pytest.raises(PluginError, match=f"the dataset Altered:what={what} .*{complaint}"):
        experiment.load(f"Altered:what={what}")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nothing", "the model Wrong:what=nothing builds NoneType, where an nn.Module is due"),
        ("none", "the model gives NoneType, where logits of shape [114, 10] are due, one a class"),
        ("pair", "the model gives tuple, where logits"),
        ("more", "the model gives a tensor of shape [114, 11], where logits of shape [114, 10] are due"),
    ],
)
@pytest.mark.parametrize("train_steps", [0, 1])
def test_a_model_that_gives_no_logits_is_blamed_and_no_attack(what, reason, train_steps, run):
    status, found = run(model=f"Wrong:what={what}", train_steps=train_steps)
    assert status == "failed"
    assert found.startswith("preparing the model, before any attack: ")
    assert reason.replace("114", "64" if train_steps else "114") in found


@pytest.mark.usefixtures("faulty")
def test_the_name_of_a_built_in_is_not_taken():
    assert find("model", "mlp").distribution == "gibench"
    assert [entry.distribution for entry in entries("model") if entry.name == "mlp"] == ["gibench", "gibench-faulty"]
    assert str(resolve("model", "mlp:width=7")) == "mlp:depth=5,width=7"


def test_an_unknown_name_says_how_one_s_own_is_found():
    with pytest.raises(
        UsageError, match=r"unknown attack 'mine': .*\[project.entry-points.\"gibench.attacks\"\] and is i"
    ):
        find("attack", "mine")


@pytest.mark.usefixtures("faulty")
def test_list_and_doctor_go_on_past_a_module_that_exits(call):
    code, out, _ = call("list", "attacks", "--json")
    assert code == 0
    assert "SystemExit: goodbye all" in out
    code, out, _ = call("doctor")
    assert code == 1
    assert "BROKEN  attack Exits: attack 'Exits' of gibench-faulty 1.0 cannot be imported: SystemExit: " in out
    assert "ok      models: " in out
