"""FedAvg: local training, exact means over clients, and what the server is told."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gibench import batches, chain, client, seeds
from gibench.buffers import mean_gradient
from gibench.chain import canonical_chain
from gibench.defense import Batch, DefenseContext, Sampler
from gibench.errors import UsageError
from gibench.observation import LocalTraining, ThreatModel
from gibench.registry import create
from gibench.spec import parse_chain


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits").load()


def build(spec="mlp:width=8,depth=1"):
    torch.manual_seed(0)
    return create("model", spec).build((1, 8, 8), 10).double()


def client_batches(*sizes):
    generator = torch.Generator().manual_seed(3)
    return [Batch(torch.randn(size, 1, 8, 8, generator=generator).double(), torch.arange(size) % 10) for size in sizes]


def update(model, data, size=4, **options):
    defense = create("defense", "fedavg:" + ",".join(f"{key}={value}" for key, value in options.items()))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    context = DefenseContext(torch.Generator().manual_seed(0), size, 100, clients=len(data), passes=defense.passes)
    return chain.run([defense], mean_gradient(model), parameters, data, context)


def flat(found):
    return torch.cat([value.flatten() for value in found.tensors.values()])


def alone(model, batch, lr, epochs=2):
    """A client's delta by torch's own optimizer, on a copy."""
    copy = build()
    copy.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(copy.parameters(), lr=lr)
    for _ in range(epochs):
        optimizer.zero_grad()
        functional.cross_entropy(copy(batch.inputs), batch.labels).backward()
        optimizer.step()
    pairs = zip(copy.parameters(), model.parameters(), strict=True)
    return torch.cat([(after - before).detach().flatten() for after, before in pairs])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_update_is_the_mean_of_the_clients_deltas(count):
    model, data = build(), client_batches(*[4] * count)
    found, _ = update(model, data, epochs=2, lr=0.1, clients=count)
    expected = sum(alone(model, batch, 0.1) for batch in data) / count
    assert found.kind == "weight_delta"
    torch.testing.assert_close(flat(found), expected, rtol=1e-10, atol=1e-14)


def test_one_step_is_fedsgd():
    model, data = build(), client_batches(5)
    found, training = update(model, data, size=5, epochs=1, lr=0.5)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    gradient = mean_gradient(model)(parameters, data[0].inputs, data[0].labels)
    torch.testing.assert_close(dict(found.tensors), {name: -0.5 * value for name, value in gradient.items()})
    assert training == LocalTraining(1, 5, 0.5, 0.0, 1, 0.5)


def test_every_epoch_goes_through_all_images_in_an_order_of_its_own(monkeypatch):
    seen = []
    model, data = build(), client_batches(7)

    def gradient(parameters, inputs, labels):
        seen.append(inputs)
        return {name: torch.zeros_like(value) for name, value in parameters.items()}

    defense = create("defense", "fedavg:epochs=3,local_batch_size=3")
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    chain.run([defense], gradient, parameters, data, DefenseContext(torch.Generator().manual_seed(0), 7, 100))
    assert [len(inputs) for inputs in seen] == [3, 3, 1] * 3
    epochs = [torch.cat(seen[start : start + 3]) for start in (0, 3, 6)]
    key = data[0].inputs[:, 0, 0, 0].sort().values
    assert all(torch.equal(epoch[:, 0, 0, 0].sort().values, key) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(1, 3), st.sampled_from(["full", "sample"]))
def test_missing_images_move_no_other_and_change_no_public_size(whole, local, missing, epochs, slots):
    """A batch and the same without its last images, under one seed: slots that are empty, and nothing else."""
    local, missing = min(local, whole), min(missing, whole)
    sampler = Sampler("poisson", "images") if slots == "sample" else Sampler()
    images = torch.arange(whole, dtype=torch.float64)

    def dealt(count):
        seen = []

        def step(parameters, batch):
            seen.append((batch.size or whole, set(batch.inputs.tolist())))
            return {name: torch.zeros_like(value) for name, value in parameters.items()}

        context = DefenseContext(torch.Generator().manual_seed(0), whole, 5 * whole, sampler=sampler)
        fedavg = create("defense", f"fedavg:epochs={epochs},local_batch_size={local}")
        fedavg.update(step, {"weight": torch.zeros(1)}, [Batch(images[:count], images[:count])], context)
        return seen

    all_of_them, fewer = dealt(whole), dealt(whole - missing)
    left = set(images[: whole - missing].tolist())
    assert fewer == [(size, images & left) for size, images in all_of_them]
    rest = [whole % local] if whole % local else []
    assert [size for size, _ in fewer] == ([local] * (whole // local) + rest) * epochs
    steps = len(all_of_them) // epochs
    for epoch in range(epochs):
        once = [image for _, images in all_of_them[epoch * steps :][:steps] for image in images]
        assert sorted(once) == images.tolist()
    if slots == "full":
        assert all(len(images) == size for size, images in all_of_them)


def test_a_poisson_sample_is_dealt_to_local_batches_by_their_sizes():
    """More images than the expected five, as a sample may have, in slots for a hundred."""
    counts = torch.zeros(3)
    context = DefenseContext(torch.Generator().manual_seed(0), 5, 100, sampler=Sampler("poisson", "images"))
    fedavg = create("defense", "fedavg:epochs=1,local_batch_size=2")
    for _ in range(400):
        dealt = fedavg._local_batches(Batch(torch.zeros(9, 1), torch.zeros(9)), context)
        counts += torch.tensor([len(batch.labels) for batch in dealt])
    assert counts.sum() == 9 * 400
    torch.testing.assert_close(counts / counts.sum(), torch.tensor([0.4, 0.4, 0.2]), atol=0.03, rtol=0)


def observe(digits, spec, knows=("batch_size", "local_hyperparameters")):
    specs = canonical_chain(parse_chain(spec))
    defenses = [create("defense", each) for each in specs]
    count = chain.client_count(defenses)
    truth = batches.draw(digits, 4, "iid", count, seeds.generator(0, "data"))
    noise = seeds.generator(0, "defense")
    model = build().float()
    count = len(digits.private)
    return client.observe(model, digits, truth, defenses, ThreatModel(frozenset(knows)), noise, 4, count), truth


def test_the_server_sees_the_mean_of_all_clients_and_how_they_trained(digits):
    release, truth = observe(digits, "fedavg:clients=3,epochs=2,local_batch_size=2,lr=0.001,momentum=0.9")
    observation = release.observation
    assert (len(truth), observation.batch_size) == (12, 12)
    assert observation.local_hyperparameters == LocalTraining(2, 2, 0.001, 0.9, 3, pytest.approx(0.00904, abs=1e-5))
    assert [spec.name for spec in observation.defenses] == ["fedavg"]
    assert release.guarantee.costs == {"local_steps": 4, "clients": 3}


def test_the_gradient_is_that_of_the_union_to_first_order(digits):
    release, truth = observe(digits, "fedavg:clients=2,epochs=3,lr=1e-5")
    plain, _ = observe(digits, "none")
    found = torch.cat([value.flatten() for value in release.observation.gradient().values()])
    model = plain.observation.model
    functional.cross_entropy(model(plain.observation.normalize(truth.images)), truth.labels).backward()
    expected = torch.cat([value.grad.flatten() for value in model.parameters()])
    assert release.observation.scale_known
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_without_the_local_hyperparameters_neither_training_nor_defenses_are_known(digits):
    observation = observe(digits, "fedavg", knows=())[0].observation
    assert observation.local_hyperparameters is None
    assert observation.defenses is None
    assert not observation.scale_known


def test_local_batches_larger_than_the_data_are_refused(digits):
    with pytest.raises(UsageError, match="local batches of 5 images and a client has 4: lower local_batch_size"):
        observe(digits, "fedavg:local_batch_size=5")


@pytest.mark.parametrize(
    "setting", ["clients=0", "epochs=0", "lr=0", "momentum=1", "momentum=-0.1", "local_batch_size=0"]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UsageError, match=f"defense 'fedavg': {setting.partition('=')[0]}=.* is refused: "):
        create("defense", f"fedavg:{setting}")


def test_two_of_them_in_a_chain_are_refused():
    with pytest.raises(UsageError, match="names fedavg twice: keep one of them"):
        canonical_chain(parse_chain("fedavg:epochs=1+fedavg:epochs=2"))
