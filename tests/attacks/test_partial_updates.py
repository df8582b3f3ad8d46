"""No attack fails on an update that is not of all parameters: what it misses, it names."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional

from gibench.attack import Context
from gibench.attacks.optimization import matching
from gibench.observation import ImagePrior, LocalTraining, Observation, ThreatModel, Update
from gibench.registry import create, entries

SHAPE, CLASSES, BATCH = (3, 4, 4), 5, 3
FIRST, SECOND, THIRD = "1", "3", "5"
INPUTS = 2 * torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(1)) - 1  # normalised
LABELS = torch.tensor([0, 3, 3])
FAST = {
    "spear": "draws=100",
    "cocktailparty": "max_iterations=3",
    "wrong-gradient": "attack=analytic",
    **dict.fromkeys(["spearpp", "spearpp-pruned", "spearpp-local-steps", "spearpp-quantized"], "rounds=1"),
    **dict.fromkeys(["dlg", "dlg-adaptive", "idlg", "sme"], "max_iterations=1"),
    **dict.fromkeys(
        ["invertinggradients", "invertinggradients-adaptive", "modern", "gradinversion"], "max_iterations=1"
    ),
}
OF_TRANSFORMERS = {"april", "token-span"}  # see transformers/test_attacks.py
ATTACKS = [entry.name for entry in entries("attack") if entry.distribution == "gibench"]
ATTACKS = [name for name in ATTACKS if name not in OF_TRANSFORMERS]

# What each cannot do without; of the others it uses what is there.
OF_FIRST = {f"{FIRST}.weight", f"{FIRST}.bias"}
OF_LABELS = {f"{THIRD}.weight", f"{THIRD}.bias"}
NEEDS = {
    **dict.fromkeys(["analytic", "cocktailparty", "spear", "wrong-gradient"], OF_FIRST),
    **dict.fromkeys(["spearpp", "spearpp-pruned", "spearpp-local-steps", "spearpp-quantized"], OF_FIRST),
    "r-gap": {f"{name}.weight" for name in (FIRST, SECOND, THIRD)},
    "layer-pair": OF_FIRST | {f"{SECOND}.weight"},
    **dict.fromkeys(
        ["idlg", "sme", "invertinggradients", "invertinggradients-adaptive", "modern", "gradinversion"], OF_LABELS
    ),
    "dlg-adaptive": OF_LABELS,
    **{name: set() for name in ["dlg", "random", "mean-image"]},
}
OF_SECOND = {f"{SECOND}.weight", f"{SECOND}.bias"}
INSTEAD = {"spearpp": OF_SECOND, "layer-pair": OF_SECOND | {f"{THIRD}.weight"}}  # which tells features


def missed(name, dropped):
    """What an attack cannot do without, of what was dropped."""
    without = NEEDS[name] & set(dropped)
    return without if without and INSTEAD.get(name, without) & set(dropped) else set()


@pytest.fixture(scope="module")
def whole():
    """An observation that lacks nothing, of a gradient."""
    torch.manual_seed(0)
    layers = nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, CLASSES)
    model = nn.Sequential(nn.Flatten(), *layers)
    loss = functional.cross_entropy(model(INPUTS), LABELS)
    found = torch.autograd.grad(loss, list(model.parameters()))
    update = Update(dict(zip(dict(model.named_parameters()), found, strict=True)))
    facts = ThreatModel.parse("batch_size,local_hyperparameters,prior")
    half = torch.full((3,), 0.5)
    prior = ImagePrior(torch.full(SHAPE, 0.5), torch.full(SHAPE, 0.25))
    granted = {"batch_size": BATCH, "defenses": (), "prior": prior}
    return Observation(model, update, SHAPE, half, half / 2, CLASSES, facts, **granted)


def run(name, observation, tensors):
    if name == "sme":  # which needs a client that trains
        tensors = {key: -0.1 * value for key, value in tensors.items()}
        training = LocalTraining(epochs=1, local_batch_size=BATCH, lr=0.1, momentum=0.0, clients=1, total_lr=0.1)
        observation = replace(observation, local_hyperparameters=training)
    if name == "r-gap":  # which takes one image, unless nobody says that there are more
        observation = replace(observation, batch_size=None)
    update = Update(tensors, "weight_delta" if name == "sme" else "gradient")
    spec = f"{name}:{FAST[name]}" if name in FAST else name
    context = Context(torch.Generator().manual_seed(0), torch.device("cpu"))
    return create("attack", spec)(replace(observation, update=update, foreign=name == "wrong-gradient"), context)


def lacking(observation, dropped):
    return {name: value for name, value in observation.update.tensors.items() if name not in dropped}


def test_the_table_is_of_all_attacks():
    assert sorted(ATTACKS) == sorted(NEEDS)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_whole_update_is_attacked(name, whole):
    assert run(name, whole, lacking(whole, [])).status in ("ok", "budget_exhausted")


@pytest.mark.parametrize(
    ("name", "dropped"),
    list(
        product(
            ATTACKS,
            [
                *[[f"{layer}.weight", f"{layer}.bias"] for layer in (FIRST, SECOND, THIRD)],
                *[[f"{layer}.{part}"] for layer in (FIRST, SECOND, THIRD) for part in ("weight", "bias")],
                [f"{layer}.bias" for layer in (FIRST, SECOND, THIRD)],
            ],
        )
    ),
)
def test_what_an_attack_misses_is_named_and_the_rest_does_without(name, dropped, whole):
    run_of_it = run(name, whole, lacking(whole, dropped))
    without = missed(name, dropped)
    if not without:
        assert run_of_it.status in ("ok", "budget_exhausted"), run_of_it.reason
    else:
        assert run_of_it.status == "skipped"
        assert any(f"the update has no '{tensor}'" in run_of_it.reason for tensor in without)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_empty_update_is_of_no_use_but_to_controls(name, whole):
    run_of_it = run(name, whole, {})
    if name in ("random", "mean-image"):
        assert run_of_it.status == "ok"
    else:
        assert run_of_it.status == "skipped"
        assert "the update has no '" in run_of_it.reason


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("layer", [FIRST, SECOND, THIRD])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_tensor_of_another_shape_is_named(name, layer, part, whole):
    tensors = lacking(whole, [])
    tensors[f"{layer}.{part}"] = tensors[f"{layer}.{part}"][:-1]
    run_of_it = run(name, whole, tensors)
    assert run_of_it.status == "skipped"
    assert f"another architecture: at '{layer}.{part}'" in run_of_it.reason


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("extra", ["7.weight", "1.running_mean", ""])
def test_a_tensor_that_is_no_parameter_is_named(name, extra, whole):
    run_of_it = run(name, whole, lacking(whole, []) | {extra: torch.zeros(4)})
    assert run_of_it.status == "skipped"
    assert f"at '{extra}' the model has no such parameter and the update [4]" in run_of_it.reason


@pytest.mark.parametrize("name", [name for name, needed in NEEDS.items() if needed])
def test_a_frozen_parameter_is_said_to_be_frozen(name, whole):
    frozen = [sorted(each)[0] for each in (NEEDS[name], INSTEAD.get(name)) if each]
    for each in frozen:
        whole.model.get_parameter(each).requires_grad_(False)
    try:
        assert "that parameter is frozen" in run(name, whole, lacking(whole, frozen)).reason
    finally:
        whole.model.requires_grad_(True)


@pytest.mark.parametrize("name", ["analytic", "cocktailparty", "spearpp"])
def test_a_layer_without_a_bias_is_told_from_an_update_without_one(name, whole):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 40, bias=False), nn.ReLU(), nn.Linear(40, CLASSES))
    tensors = {key: torch.randn_like(value) for key, value in model.named_parameters()}
    run_of_it = run(name, replace(whole, model=model), tensors)
    assert run_of_it.status == "skipped"
    assert "needs a bias in the first linear layer ('1' has none)" in run_of_it.reason


@pytest.mark.parametrize("name", ["dlg", "idlg", "invertinggradients", "modern"])
@pytest.mark.parametrize("dropped", [FIRST, SECOND])
def test_gradient_matching_matches_the_tensors_that_are_there(name, dropped, whole):
    """The truth itself has the objective zero, whatever the update lacks; another batch has not."""
    gradient = lacking(whole, [f"{dropped}.weight", f"{dropped}.bias"])
    attack = create("attack", name)
    match = matching.make(whole.model, gradient, attack.objective)
    right, wrong = (match(candidate[None], LABELS[None]).value for candidate in (INPUTS, INPUTS.abs()))
    assert right.item() == pytest.approx(0, abs=1e-5)
    assert wrong.item() > 1e-3


def noisy(observation, dropped, size=1e-3):
    """So much noise that nothing is certain, and all that an update can say is asked for."""
    draw = torch.Generator().manual_seed(2)
    kept = lacking(observation, dropped)
    return {name: value + size * value.std() * torch.randn(value.shape, generator=draw) for name, value in kept.items()}


@pytest.mark.parametrize("name", [name for name in ATTACKS if name.startswith("spearpp")])
@pytest.mark.parametrize("dropped", [f"{SECOND}.weight", f"{SECOND}.bias", f"{THIRD}.bias", f"{THIRD}.weight"])
def test_later_layers_are_asked_for_what_they_sent(name, dropped, whole):
    assert run(name, whole, noisy(whole, [dropped])).status == "ok"


def test_the_search_goes_on_where_the_next_layer_cannot_be_asked_or_says_nothing(whole):
    """As long as it may, where the next layer would be asked after six rounds: two neurons an image are too few."""
    inputs = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    loss = functional.cross_entropy(whole.model(inputs), torch.arange(20) % CLASSES)
    found = torch.autograd.grad(loss, list(whole.model.parameters()))
    tensors = dict(zip(dict(whole.model.named_parameters()), found, strict=True))
    rounds = []
    for kept in (tensors, {name: value for name, value in tensors.items() if name != f"{SECOND}.weight"}):
        context = Context(torch.Generator().manual_seed(0), torch.device("cpu"))
        seen = replace(whole, update=Update(kept), batch_size=20)
        rounds.append(create("attack", "spearpp:rounds=9")(seen, context).reconstruction.diagnostics["rounds"])
    assert rounds == [9, 9]


def test_signals_of_one_hidden_layer_need_the_last_bias(whole):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 60), nn.ReLU(), nn.Linear(60, CLASSES))
    found = torch.autograd.grad(functional.cross_entropy(model(INPUTS), LABELS), list(model.parameters()))
    tensors = dict(zip(dict(model.named_parameters()), found, strict=True))
    del tensors["3.bias"]
    seen = replace(whole, model=model)
    assert run("spearpp", seen, tensors).status == "ok"
    context = Context(torch.Generator().manual_seed(0), torch.device("cpu"))
    asked = create("attack", "spearpp:objective=two-valued")(replace(seen, update=Update(tensors)), context)
    assert asked.status == "skipped"
    assert "the update has no '3.bias'" in asked.reason
