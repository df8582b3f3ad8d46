"""A network of one's own: found, built, keyed by its bytes, attacked or skipped in words; every mistake is one line."""

import os
import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gibench import batches, client, experiment, seeds
from gibench.attack import Context, _twice_differentiable
from gibench.errors import UsageError
from gibench.job import _code_of
from gibench.registry import create, resolve
from gibench.sweep.suite import Suite
from gibench.testing import findings
from gibench.threat_model import ThreatModel

OWN = Path(__file__).with_name("own_networks.py")
SPARSE = ("spearpp", "spear:draws=20000", "spearpp-pruned", "spearpp-local-steps:rounds=4", "spearpp-quantized")
PATTERNS = (*SPARSE, "layer-pair")
PIXELS = ("analytic", "cocktailparty:max_iterations=2")
MATCHERS = tuple(
    f"{name}:max_iterations=1"
    for name in ("dlg", "idlg", "invertinggradients", "modern", "invertinggradients-adaptive", "dlg-adaptive")
)
OTHERS = ("sme:max_iterations=1", "random", "mean-image")
ATTACKS = (*PATTERNS, *PIXELS, *MATCHERS, *OTHERS)
BEGINS = "needs a linear layer fed by the input, and this model begins with "
NO_BIAS = r"needs a bias in the first linear layer \('1' has none\)"
TWICE = "needs a first layer fed by the image as it is, once, and what enters layer 'first' is not that"
TIED = "layer 'first' shares 'second.weight', whose gradient is of both"
ELSEWHERE = "the model uses the weight of layer 'first' elsewhere too"
NOT_ALONE = "needs a linear layer that the first layer's activation feeds, and it alone"
NO_FLAT = "needs a linear layer fed by the flattened images"
TRACED = r"cannot be traced to find its first layer \(TypeError: float\(\) argument"
AROUND = "needs a ReLU right after the first linear layer, and it alone, which Linear is not, nor another of the"
FUNCTION = "needs a torch.nn.Linear, whose forward is torch's, and this model calls linear"
COMPUTED = r"the update has no '{}\.weight': the model computes it of other parameters"
NOT_READ = "labels and features are read off the last layer, and " + COMPUTED.format("5")
DETACHED = "the gradient says nothing of the images: what the model makes of them is detached"
A_GRADIENT = "the update is a gradient, and there is no surrogate between two weights"
INFERS = tuple(each for each in MATCHERS if not each.startswith("dlg:"))  # labels, off the last layer
CONV = dict.fromkeys(SPARSE[1:], f"{BEGINS}Conv2d") | dict.fromkeys(PIXELS, NO_FLAT)
SKIPPED = {  # why an attack cannot apply; those that are not named can
    "layers": {},
    "in_place": {},
    "Functional": {},
    "Written": {},
    "Clamped": {},
    "named": {},
    "ready": {},
    "wide(width=50)": {},
    "InMemory": {},
    "Permuted": {},
    "Indexed": {},
    "Unused": {},
    "no_bias": dict.fromkeys((*SPARSE[1:], *PIXELS), NO_BIAS),
    "Shared": dict.fromkeys(SPARSE[1:], TWICE) | dict.fromkeys(PIXELS, NO_FLAT),
    "Tied": dict.fromkeys((*PATTERNS, *PIXELS), TIED),
    "Transposed": dict.fromkeys((*SPARSE[1:], *PIXELS), ELSEWHERE),
    "BranchingTransposed": dict.fromkeys(PATTERNS, TRACED) | dict.fromkeys(PIXELS, ELSEWHERE),
    "Asked": dict.fromkeys(PATTERNS, TRACED),
    "NextTied": {"layer-pair": NOT_ALONE},
    "Heads": {},
    "Around": dict.fromkeys(PATTERNS, AROUND),
    "dropped": {"layer-pair": NOT_ALONE},
    "doubled": dict.fromkeys(PATTERNS, FUNCTION) | dict.fromkeys(PIXELS, NO_FLAT),
    "normalised": dict.fromkeys((*SPARSE[1:], *PIXELS), COMPUTED.format("1")),
    "normalised(place=5)": dict.fromkeys(INFERS, NOT_READ),
    "ChannelsLast": dict.fromkeys(PATTERNS, f"{BEGINS}Conv2d") | CONV,
    "normed": dict.fromkeys(PATTERNS, f"{BEGINS}Conv2d") | CONV,
    "Branching": dict.fromkeys(PATTERNS, TRACED),
    "Fused": dict.fromkeys(PATTERNS, "whole image of 64 values, and layer 'qkv' takes 8")
    | dict.fromkeys(PIXELS, NO_FLAT),
    "Cut": dict.fromkeys(MATCHERS, DETACHED),
}
SEED = 1
BOTH = ("spearpp", "layer-pair")
EXACT = ("layers", "in_place", "Functional", "Written", "Clamped", "named", "InMemory", "Permuted", "Indexed", "Unused")


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits").load()


def spec(name, file=OWN, weights=None):
    return f"module:path='{file}:{name}'" + (f",weights='{weights}'" if weights else "")


def build(name, image_shape=(1, 8, 8), num_classes=10, **where):
    with seeds.isolated(0, "model"):
        return create("model", spec(name, **where)).build(image_shape, num_classes)


def observed(name, digits, count=2):
    truth = batches.draw(digits, count, "iid", 1, seeds.generator(SEED, "data"))
    chain, noise = [create("defense", "none")], seeds.generator(0, "defense")
    return client.observe(build(name), digits, truth, chain, ThreatModel(), noise, count).observation, truth


def attacked(attack, observation):
    return create("attack", attack)(observation, Context(seeds.generator(0, "attack"), torch.device("cpu")))


def exact(found, truth):
    """Which of the images returned are true ones, `[N]`."""
    images = found.images[: len(truth)]
    distances = (images[:, None] - truth.images).flatten(2).abs().amax(2)
    return distances.amin(1) < 1 / 510


@pytest.mark.parametrize("name", SKIPPED)
def test_every_attack_applies_or_says_why_not(name, digits):
    observation, _ = observed(name, digits)
    reasons = SKIPPED[name] | {OTHERS[0]: A_GRADIENT}
    with _twice_differentiable():
        for attack in ATTACKS:
            said = create("attack", attack).supports(observation)
            assert re.search(reasons[attack], said or "it applies") if attack in reasons else said is None, (
                attack,
                said,
            )


@pytest.mark.parametrize("name", [name for name, why in SKIPPED.items() if "spearpp" not in why])
def test_what_applies_ends_well_and_certifies_nothing_false(name, digits):
    observation, truth = observed(name, digits)
    for attack in {*BOTH, "analytic"} - SKIPPED[name].keys():
        found = attacked(attack, observation).reconstruction
        right = exact(found, truth)
        certified = torch.zeros_like(right) if found.certified is None else found.certified[: len(right)]
        assert not (certified & ~right).any()
        if name in EXACT:
            assert right.tolist() == [True, True], attack
            assert attack != "spearpp" or name in ("Permuted", "Indexed") or certified.all()


@pytest.mark.parametrize(("attack", "count"), [*((each, 2) for each in SPARSE[1:]), (PIXELS[1], 1)])
def test_pixels_in_another_order_are_put_back(attack, count, digits):
    observation, truth = observed("Indexed", digits, count)
    assert exact(attacked(attack, observation).reconstruction, truth).all()


def test_a_head_that_nothing_goes_through_leaves_matching_and_labels_as_they_are(digits):
    with_spare, without = (observed(name, digits)[0] for name in ("Unused", "Functional"))
    for name, parameter in without.model.named_parameters():
        assert torch.equal(with_spare.model.get_parameter(name), parameter)
    found, expected = (
        attacked("modern:max_iterations=3", each).reconstruction
        for each in (replace(with_spare, batch_size=2), without)
    )
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.images, expected.images, rtol=1e-4, atol=1e-5)


def test_a_neighbour_of_the_same_name_is_that_of_each_file(tmp_path):
    for width in (20, 30):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "sizes.py").write_text(f"WIDTH = {width}\n")
        (folder / "net.py").write_text(
            "from sizes import WIDTH\nfrom torch import nn\n"
            "def make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10))\n"
        )
    path, modules = list(sys.path), set(sys.modules)
    for width in (20, 30, 20):
        assert build("make", file=tmp_path / str(width) / "net.py")[1].out_features == width
    assert sys.path == path
    assert not {"sizes", "net", "own_net"} & (set(sys.modules) - modules)
    assert not list(tmp_path.rglob("__pycache__"))


def key(model):
    _code_of.cache_clear()  # as another process would find it
    (cell,) = Suite.from_settings("keyed", {"attack": "random", "dataset": "digits", "model": model}).cells()
    return cell.key


def test_the_key_is_of_the_code_its_neighbours_and_the_weights(tmp_path):
    net, neighbour, other, weights = (tmp_path / name for name in ("net.py", "part.py", "other.py", "w.safetensors"))
    shutil.copy(OWN, net)
    net.write_text(net.read_text() + "\nimport part\n")
    neighbour.write_text("WIDTH = 1\n")
    other.write_text("WIDTH = 1\n")
    save_file(build("layers").state_dict(), weights)
    model = spec("layers", net, weights)
    first = key(model)
    assert key(model) == first
    other.write_text("WIDTH = 2\n")
    assert key(model) == first
    changed = [first]
    for file, content in ((net, net.read_bytes() + b"\n"), (neighbour, b"WIDTH = 2\n")):
        file.write_bytes(content)
        changed.append(key(model))
    state = build("layers").state_dict()
    save_file({name: value + 1 for name, value in state.items()}, weights)
    changed.append(key(model))
    assert len(set(changed)) == len(changed)


def test_a_spec_names_the_same_file_in_every_working_folder(tmp_path, monkeypatch):
    shutil.copy(OWN, tmp_path / "net.py")
    monkeypatch.chdir(tmp_path)
    found = resolve("model", "module:path='net.py:wide(width=60)'")
    assert dict(found.settings)["path"] == f"{os.path.realpath(tmp_path)}/net.py:wide(width=60)"
    assert resolve("model", str(found)) == found
    assert create("model", found).build((1, 8, 8), 10)[1].out_features == 60


def test_a_module_of_the_working_folder_and_an_installed_one_are_found(tmp_path, monkeypatch):
    shutil.copy(OWN, tmp_path / "of_this_folder.py")
    monkeypatch.chdir(tmp_path)
    model = create("model", "module:path='of_this_folder:layers'")
    assert isinstance(model.build((1, 8, 8), 10), nn.Sequential)
    assert [file.name for file in model.files()] == ["of_this_folder.py"]
    squeezed = create("model", "module:path='torchvision.models:squeezenet1_1'")  # it takes num_classes alone
    assert type(squeezed.build((3, 40, 40), 7)).__module__ == "torchvision.models.squeezenet"
    assert [file.name for file in squeezed.files()] == ["torchvision"]


def test_weights_are_loaded_from_both_formats(tmp_path):
    wanted = {name: torch.randn_like(value) for name, value in build("layers").state_dict().items()}
    save_file(wanted, tmp_path / "w.safetensors")
    torch.save(wanted, tmp_path / "w.pt")
    for file in ("w.safetensors", "w.pt"):
        found = build("layers", weights=tmp_path / file).state_dict()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nothing", "has no 'nothing': name a function or class that makes the network"),
        ("text", "makes a str: it must make a torch.nn.Module"),
        ("number", "makes an int: it must make a torch.nn.Module"),
        ("hooked", r"cannot be copied \('1\.weight' is a tensor that is computed of others\): keep parameters"),
        ("Overwriting", r"writes over the images that it is given: let its forward begin with x = x\.clone"),
        ("fails", "fails .KeyError: 'no such layer'.: mend it, or give its arguments"),
        ("lazy", "the model has lazy layers"),
        ("colours", "the model does not take images of shape 1,8,8 .*expected input.* to have 3 channels"),
        ("Pair", r"must give logits of shape \[N, classes\] for N images, and gives a tuple: wrap it so that it does"),
        ("Several", "the model gives 7 logits, and the data have 10 classes: let the factory take num_classes"),
        ("wide(depth=3)", "fails .TypeError: .*unexpected keyword argument 'depth'"),
        ("wide(width=3", "names no model: write MODULE:FACTORY or FILE.py:FACTORY"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_in_one_line(name, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        build(name)
    assert "\n" not in str(refusal.value)


def test_what_is_not_there_is_refused(tmp_path):
    for missing in ("module:path='gone.py:make'", "module:path='gone.inside:make'"):
        for use in (create("model", missing).files, lambda: create("model", missing).build((1, 8, 8), 10)):  # noqa: B023
            with pytest.raises(UsageError, match=r"there is no file '.*gone\.py'|'gone\.inside' cannot be imported"):
                use()
    with pytest.raises(UsageError, match=r"there is no file '.*gone\.pt': give the weights as"):
        build("layers", weights=tmp_path / "gone.pt")
    for whole, complaint in (("os:getcwd", "makes a str: it must make"), ("sys:nothing", "has no 'nothing'")):
        with pytest.raises(UsageError, match=complaint):
            create("model", f"module:path='{whole}'").build((1, 8, 8), 10)
        assert create("model", f"module:path='{whole}'").files() == []
    with pytest.raises(UsageError, match="the model module needs a factory: write module:path="):
        create("model", "module").files()


class Harmful:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (
            lambda: build("wide", num_classes=10).state_dict(),
            r"the weights lacks '5\.weight', '5\.bias': it must hold every",
        ),
        (lambda: build("Several(count=10)").state_dict(), "the weights has 'first.weight'.*which the model has not"),
        (
            lambda: {**build("layers").state_dict(), "1.weight": torch.zeros(41, 64)},
            r"has shape \[41, 64\] at '1.weight', and the model \[40, 64\]: it is of another model",
        ),
        (lambda: {**build("layers").state_dict(), "1.bias": torch.full((40,), torch.nan)}, "NaN or infinity at '1.b"),
        (Harmful, "a pickle of more than tensors, which could run code and is not opened"),
    ],
)
def test_weights_of_another_network_and_pickles_are_refused(weights, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "w.pt"
    made = weights()
    file.write_bytes(pickle.dumps(made)) if isinstance(made, Harmful) else torch.save(made, file)
    with pytest.raises(UsageError, match=complaint):
        build("layers", weights=file)
    assert not (tmp_path / "unpickled").exists()


def test_weights_without_running_statistics_are_refused(tmp_path):
    state = {name: value for name, value in build("normed").state_dict().items() if "running" not in name}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"the weights 'w\.pt' lack '1\.running_mean': save all"):
        build("normed", weights=tmp_path / "w.pt")


def test_a_refused_network_is_told_before_anything_runs(call):
    outcome = call("run", "--attack", "random", "--dataset", "digits", "--model", spec("Pair"))
    assert outcome.code == 2
    assert "must give logits" in outcome.err


@pytest.mark.parametrize(
    "name", ["wide", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dropped", "normed"))]
)
def test_the_kit_passes_a_network_of_ones_own(name):
    assert [each for each in findings("model", spec(name)) if each.outcome == "fault"] == []


@pytest.mark.slow
def test_it_is_attacked_in_processes_that_cannot_import_it(tmp_path, call, monkeypatch):
    shutil.copy(OWN, tmp_path / "net.py")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    arguments = ("--dataset", "digits", "--batch-size", 2, "--train-steps", 2, "--device", "cpu", "--json")
    wanted = ("--model", spec("Functional", tmp_path / "net.py"), "--model", spec("Branching", tmp_path / "net.py"))
    outcome = call("run", "--attack", "analytic", *wanted, *arguments, "--executor", "process")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count('"status": "ok"') == 2


def test_a_network_is_trained_like_any_other():
    model, accuracy = experiment.trained_model("digits", spec("wide"), 60, 0, "cpu", 1, torch.float32)
    assert isinstance(model, nn.Sequential)
    assert accuracy > 0.6
