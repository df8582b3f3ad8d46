"""The client: its gradient is right, and nothing that the threat model withholds can be reached from what it gives."""

import types
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench import batches, client, seeds
from gibench.axes import canonical_defense
from gibench.defense import Defense
from gibench.errors import NotApplicableError
from gibench.registry import create, entries
from gibench.spec import Spec, parse_chain
from gibench.threat_model import KNOWLEDGE, ThreatModel

EVERYTHING = frozenset(KNOWLEDGE)
MODELS = ("mlp:width=30,depth=2", "linear", "lenet", "convnet:width=4", "resnet18")


@pytest.fixture(scope="module")
def photos():
    return create("dataset", "photos").load()


@pytest.fixture(scope="module")
def truth(photos):
    return batches.draw(photos, 6, "iid", 1, seeds.generator(0, "data"))


def build(images, spec="mlp:width=30,depth=2", dtype=torch.float64):
    with seeds.isolated(0, "model"):
        return create("model", spec).build(images.image_shape, images.num_classes).to(dtype)


def observe(model, images, truth, *defenses, knows=EVERYTHING, seed=0, **more):
    chain = [create("defense", spec) for spec in defenses or ["none"]]
    noise = seeds.generator(seed, "defense")
    known = ThreatModel(frozenset(knows))
    return client.observe(model, images, truth, chain, known, noise, len(truth), **more)


def normalised(images, truth, dtype=torch.float64):
    return (truth.images.to(dtype) - images.mean.to(dtype).view(-1, 1, 1)) / images.std.to(dtype).view(-1, 1, 1)


def reachable(root):
    """Every tensor that can be reached from an object's data: attributes, items, closures, gradients, autograd."""
    stack, seen, tensors = [root], {}, []
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | str | bytes | int | float | None):
            continue
        seen[id(thing)] = thing  # kept, so that no id is used again
        if isinstance(thing, Tensor):
            tensors.append(thing)
            stack += [thing.grad_fn, thing.grad if thing.is_leaf else None]
        if isinstance(thing, dict):
            stack += [*thing.keys(), *thing.values()]
        elif isinstance(thing, types.MappingProxyType | list | tuple | set | frozenset):
            stack += list(thing.values() if isinstance(thing, types.MappingProxyType) else thing)
        if isinstance(thing, types.FunctionType):
            stack += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
        if isinstance(thing, types.MethodType):
            stack.append(thing.__self__)
        if isinstance(thing, partial):
            stack += [thing.func, thing.args, thing.keywords]
        if type(thing).__module__ == "torch.autograd" or hasattr(thing, "next_functions"):
            saved = [getattr(thing, name) for name in dir(thing) if name.startswith("_saved")]
            stack += [function for function, _ in thing.next_functions] + saved
        stack.append(getattr(thing, "__dict__", None))
        stack += [getattr(thing, slot, None) for slot in getattr(type(thing), "__slots__", ())]
    return tensors


def holds(tensor, wanted):
    """Whether a tensor's memory holds one of the wanted rows, in whatever shape and dtype."""
    memory = torch.empty(0, dtype=tensor.dtype).set_(tensor.detach().untyped_storage()).double()
    rows = wanted.double().flatten(1)
    if len(memory) < rows.shape[1]:
        return False
    starts = [(memory == row[0]).nonzero().flatten() for row in rows]
    return any(
        torch.equal(memory[start : start + len(row)], row)
        for row, found in zip(rows, starts, strict=True)
        for start in found.tolist()
    )


@pytest.mark.parametrize("defense", ["none", "dp", "fedavg"])
@pytest.mark.parametrize("spec", ["mlp:width=30,depth=2", "convnet:width=4"])
def test_no_private_image_can_be_reached_whatever_is_known(spec, defense, photos, truth):
    observation = observe(build(photos, spec), photos, truth, defense).observation
    tensors = reachable(observation)
    assert len(tensors) > 10
    assert not any(holds(tensor, truth.images) for tensor in tensors)
    assert not any(holds(tensor, normalised(photos, truth)) for tensor in tensors)


@pytest.mark.parametrize("known", [True, False])
def test_labels_can_be_reached_only_when_known(known, photos, truth):
    knows = EVERYTHING if known else EVERYTHING - {"labels"}
    observation = observe(build(photos), photos, truth, knows=knows).observation
    assert any(holds(tensor, truth.labels[None]) for tensor in reachable(observation)) is known
    assert (observation.labels is not None) is known


def test_public_images_can_be_reached_only_when_known(photos, truth):
    for knows in (EVERYTHING, EVERYTHING - {"surrogate_data"}):
        tensors = reachable(observe(build(photos), photos, truth, knows=knows).observation)
        assert any(holds(tensor, photos.public.images[:1]) for tensor in tensors) is ("surrogate_data" in knows)


def test_the_search_for_leaks_finds_an_image_in_autograd_and_in_closures(photos, truth):
    model = build(photos, "linear")
    loss = model(normalised(photos, truth)).sum()
    hidden = {"loss": loss, "deep": [partial(lambda value: value, truth.images[2:3] * 1)]}
    assert any(holds(tensor, normalised(photos, truth)) for tensor in reachable({"loss": loss}))
    assert any(holds(tensor, truth.images) for tensor in reachable(hidden["deep"]))


@pytest.mark.parametrize("fact", KNOWLEDGE)
def test_a_fact_is_granted_alone(fact, photos, truth):
    observation = observe(build(photos), photos, truth, knows={fact}).observation
    assert [name for name in KNOWLEDGE if getattr(observation, name) is not None] in ([fact], [])
    assert str(observation.threat_model) == fact


def test_nothing_beside_the_update_is_known_by_nothing(photos, truth):
    observation = observe(build(photos), photos, truth, knows=()).observation
    assert [name for name in KNOWLEDGE if getattr(observation, name) is not None] == []
    assert observation.image_shape == (3, 32, 32)
    assert observation.num_classes == 10


def test_granted_facts_are_true(photos, truth):
    observation = observe(build(photos), photos, truth).observation
    assert observation.batch_size == 6
    assert torch.equal(observation.labels, truth.labels)
    assert torch.equal(observation.surrogate_data.images, photos.public.images)
    torch.testing.assert_close(observation.prior.mean, photos.public.images.mean(0))
    torch.testing.assert_close(observation.prior.std, photos.public.images.std(0, correction=0))


def test_what_an_attack_does_to_its_observation_it_does_to_no_other(photos, truth):
    model = build(photos)
    before = reachable([photos, truth, model.state_dict()])
    copies = [tensor.clone() for tensor in before]
    with torch.no_grad():
        for tensor in reachable(observe(model, photos, truth).observation):
            tensor.zero_()
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(before, copies, strict=True))


def test_the_gradient_of_softmax_regression_is_its_closed_form(photos, truth):
    model = build(photos, "linear")
    update = observe(model, photos, truth).observation.update
    inputs = normalised(photos, truth).flatten(1)
    residual = (model(inputs).softmax(1) - functional.one_hot(truth.labels, 10)).detach() / len(truth)
    assert update.kind == "gradient"
    torch.testing.assert_close(update.tensors["1.weight"], residual.T @ inputs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(update.tensors["1.bias"], residual.sum(0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spec", MODELS)
def test_the_gradient_is_that_of_autograd_on_the_batch(spec, photos, truth):
    model = build(photos, spec)
    release = observe(model, photos, truth)
    functional.cross_entropy(model(normalised(photos, truth)), truth.labels).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(dict(release.observation.update.tensors), expected, rtol=1e-9, atol=1e-12)
    norm = torch.cat([value.flatten() for value in expected.values()]).norm()
    assert release.grad_norm == pytest.approx(float(norm), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_update_has_the_dtype_of_the_model(dtype, photos, truth):
    tensors = observe(build(photos, dtype=dtype), photos, truth, "dp").observation.update.tensors
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}


@pytest.mark.parametrize("sent", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("defense", ["none", "dp", "pruning", "fedavg:epochs=2"])
def test_half_precision_is_a_rounding_of_what_leaves_after_all_defenses(defense, sent, photos, truth):
    model = build(photos, dtype=torch.float32)
    whole = observe(model, photos, truth, defense).observation.update
    rounded = observe(model, photos, truth, defense, sent=sent).observation.update
    assert rounded.kind == whole.kind
    assert {tensor.dtype for tensor in rounded.tensors.values()} == {sent}
    assert all(torch.equal(rounded.tensors[name], tensor.to(sent)) for name, tensor in whole.tensors.items())


def test_what_overflows_is_not_sent(photos, truth):
    model = build(photos, dtype=torch.float32)
    words = r"does not fit float16, whose largest number is 65504: \d+ entries of '1.weight' become infinite"
    with pytest.raises(NotApplicableError, match=words):
        observe(model, photos, truth, "noise:std=1e5", sent=torch.float16)
    observe(model, photos, truth, "noise:std=1e5", sent=torch.bfloat16)


def test_the_observed_inputs_are_the_clients_to_the_last_bit(photos, truth):
    observation = observe(build(photos, "linear"), photos, truth).observation
    assert torch.equal(observation.normalize(truth.images.double()), normalised(photos, truth))


def test_the_server_sees_the_model_that_it_sent(photos, truth):
    model = build(photos, "resnet18", torch.float32).eval()
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    observed = observe(model, photos, truth).observation.model
    for state in (model.state_dict(), observed.state_dict()):
        assert all(torch.equal(value, sent[name]) for name, value in state.items())
    assert observed.training
    assert all(parameter.grad is None for parameter in observed.parameters())


def test_batchnorm_statistics_are_those_of_the_private_batch(photos, truth):
    model = build(photos, "resnet18")
    statistics = observe(model, photos, truth).observation.bn_statistics
    entering = functional.conv2d(normalised(photos, truth), model.conv1.weight, padding=1)
    torch.testing.assert_close(statistics["bn1.mean"], entering.mean((0, 2, 3)))
    torch.testing.assert_close(statistics["bn1.var"], entering.var((0, 2, 3), correction=0))
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(statistics) == 2 * len(layers)


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_mode_and_the_observation_says_which(training, photos, truth):
    model = normed(photos)
    release = observe(model, photos, truth, training=training)
    assert release.observation.mode == ("train" if training else "eval")
    assert all(each.training == training for each in release.observation.model.modules())
    there = normed(photos).train(training)
    functional.cross_entropy(there(normalised(photos, truth)), truth.labels).backward()
    other = observe(model, photos, truth, training=not training).observation.gradient()
    for name, parameter in there.named_parameters():
        torch.testing.assert_close(release.observation.gradient()[name], parameter.grad)
    assert not all(torch.allclose(other[name], value) for name, value in release.observation.gradient().items())


def normed(images):
    with seeds.isolated(0, "model"):
        head = nn.Flatten(), nn.Linear(4 * 900, images.num_classes)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *head).double()


def test_a_step_on_one_image_is_refused_where_batchnorm_takes_the_batchs_statistics_alone(photos, truth):
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 4), nn.BatchNorm1d(4), nn.Linear(4, photos.num_classes)
    ).double()
    one = replace(truth, images=truth.images[:1], labels=truth.labels[:1])
    with pytest.raises(NotApplicableError, match="gives it a single value a channel"):
        observe(model, photos, one, knows=())
    assert observe(model, photos, one, knows=(), training=False).grad_norm > 0


def test_masks_of_dropout_are_the_clients_own(photos, truth):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 12)).double()

    def of(seed, **more):
        with seeds.isolated(seed, "client"):
            before = torch.get_rng_state()
            release = observe(model, photos, truth, **more)
            return release, not torch.equal(before, torch.get_rng_state())

    (one, drew), (same, _), (other, _) = (of(seed) for seed in (1, 1, 2))
    gradients = [each.observation.gradient() for each in (one, same, other)]
    assert drew
    assert all(torch.equal(gradients[0][name], value) for name, value in gradients[1].items())
    assert not torch.allclose(gradients[0]["4.weight"], gradients[2]["4.weight"])
    norm = torch.cat([value.flatten() for value in gradients[0].values()]).norm()
    assert one.grad_norm == pytest.approx(float(norm))  # of the same masks
    (quiet, drew), (again, _) = of(1, training=False), of(2, training=False)
    assert not drew
    assert torch.equal(quiet.observation.gradient()["4.weight"], again.observation.gradient()["4.weight"])


def test_a_defense_that_refuses_the_model_says_why(photos, truth):
    with pytest.raises(NotApplicableError, match="BatchNorm mixes the examples of a batch"):
        observe(build(photos, "resnet18"), photos, truth, "dp")


def test_the_noise_follows_the_defenses_seed_alone(photos, truth):
    model = build(photos)
    one, same, other = (observe(model, photos, truth, "dp", seed=seed).observation.gradient() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_the_gradient_norm_is_that_before_any_defense(photos, truth):
    model = build(photos)
    assert observe(model, photos, truth, "dp").grad_norm == observe(model, photos, truth).grad_norm


@pytest.mark.parametrize(
    "chain",
    [entry.name for entry in entries("defense")]
    + ["dp:noise_multiplier=0.5+fedavg:clients=2,epochs=1+pruning:sparsity=0.5"],
)
def test_the_chain_that_is_told_is_that_of_the_defenses(chain, photos, truth):
    specs = parse_chain(canonical_defense(chain))
    defenses = [create("defense", spec) for spec in specs]
    size = len(truth) // 2 if "clients=2" in chain else len(truth)
    for knows in (EVERYTHING, EVERYTHING - {"local_hyperparameters"}):
        threat, noise = ThreatModel(knows), seeds.generator(0, "defense")
        told = client.observe(build(photos), photos, truth, defenses, threat, noise, size).observation.defenses
        assert told == (specs if knows == EVERYTHING else None)


def test_a_defense_that_is_not_registered_is_told_by_its_class(photos, truth):
    class Halved(Defense):
        share: float = 0.5

    noise = seeds.generator(0, "defense")
    release = client.observe(build(photos), photos, truth, [Halved()], ThreatModel(), noise, len(truth))
    assert release.observation.defenses == (Spec("Halved", (("share", "0.5"),)),)


class Scribbling(nn.Module):
    """Writes over its input, weights and buffer when called, and keeps what it computed."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 10)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, inputs):
        inputs.mul_(0.5)
        self.calls += 1
        with torch.no_grad():
            self.linear.weight.mul_(0.9)
        self.last = self.linear(inputs.flatten(1)) * (1 + self.calls)
        return self.last


def test_a_model_that_writes_when_called_is_the_same_for_every_use_of_it(photos, truth):
    torch.manual_seed(0)
    model, like = Scribbling(), Scribbling()
    like.load_state_dict(model.state_dict())
    release, again = (observe(model, photos, truth, knows=knows) for knows in (EVERYTHING, ()))
    update, same = (each.observation.update.tensors for each in (release, again))
    assert all(torch.equal(update[name], same[name]) for name in update)
    norm = torch.cat([value.flatten() for value in update.values()]).double().norm()
    assert release.grad_norm == again.grad_norm == pytest.approx(float(norm), rel=1e-6)
    for name, sent in like.state_dict().items():
        assert torch.equal(model.state_dict()[name], sent)
        assert torch.equal(release.observation.model.state_dict()[name], sent)
    assert not hasattr(model, "last")
