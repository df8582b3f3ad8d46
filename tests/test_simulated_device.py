"""Attacks and defenses on a device that is not the CPU: nothing mixes, nothing differs, and waits are bounded."""

import pytest
import torch

from gibench import batches, chain, client, seeds
from gibench.attack import Context
from gibench.axes import canonical_defense
from gibench.registry import create, entries
from gibench.spec import parse_chain
from gibench.testing.device import NAME, held, simulated
from gibench.threat_model import KNOWLEDGE, ThreatModel
from tests.benchmarks.gpu import SINGLE, attacks

DEFENSES = {
    "fedavg": "fedavg:epochs=2,local_batch_size=2,momentum=0.5,clients=2",
    "quantize": "quantize:bits=1",
    "noise": "noise:distribution=laplacian",
}
DEFENDED = [DEFENSES.get(entry.name, entry.name) for entry in entries("defense") if entry.distribution == "gibench"]
DEFENDED += ["dp:on=update,clipping=per-layer", "fedavg:local_batch_size=2+dp", "pruning:scope=global,choice=random"]
WAITS = {  # how often an attack on such a batch may make the host wait for the device
    **dict.fromkeys(["mean-image", "random"], 0),
    **dict.fromkeys(["dlg", "dlg-adaptive", "idlg"], 10),
    **dict.fromkeys(["invertinggradients", "modern", "gradinversion"], 12),
    **dict.fromkeys(["invertinggradients-adaptive", "sme"], 24),
    **dict.fromkeys(["layer-pair", "wrong-gradient"], 150),
    "cocktailparty": 15,
    "analytic": 60,
    "april": 60,
    "token-span": 300,
    "r-gap": 40,
    "spear": 120,
    "spearpp": 150,
    "spearpp-local-steps": 750,
    "spearpp-pruned": 280,
    "spearpp-quantized": 460,
}
BATCH = 3
MODELS = {
    **dict.fromkeys(["april", "token-span"], "vit-tiny:patch=4,width=48,depth=2,heads=1"),
    "r-gap": "lenet",
}
LONG = ("spearpp-local-steps", "spearpp-pruned", "spearpp-quantized")  # take what SPEAR++ takes several times over
ATTACKS = [
    pytest.param(*each, marks=pytest.mark.slow if each[0].startswith(LONG) else ()) for each in attacks().items()
]


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits").load()


def observe(device, images, defense="none", model="mlp:width=48,depth=3", count=BATCH):
    """What a server sees of one batch of digits whose client is on the device, and grants everything."""
    defenses = [create("defense", spec) for spec in parse_chain(canonical_defense(defense))]
    truth = batches.draw(images, count, "iid", chain.client_count(defenses), seeds.generator(1, "data"))
    with seeds.isolated(0, "model"):
        network = create("model", model).build(images.image_shape, images.num_classes).to(device)
    noise = seeds.generator(0, "defense", device)
    return client.observe(network, images, truth, defenses, ThreatModel(frozenset(KNOWLEDGE)), noise, count).observation


def attacked(name, device, images, defense="none"):
    plain = name.partition(":")[0]
    model = MODELS.get(plain, "mlp:width=48,depth=3")
    observation = observe(device, images, defense, model, 1 if plain in SINGLE else BATCH)
    observation.__dict__["foreign"] = name.startswith("wrong-gradient")
    generator = seeds.generator(0, "attack", device)
    return create("attack", name)(observation, Context(generator, torch.device(device)))


def same(one, other):
    """Whether two tensors have the same bits, on whatever device."""
    return one is other is None or torch.equal(held(one), held(other))


@pytest.mark.parametrize(("attack", "defense"), ATTACKS)
def test_an_attack_gives_the_cpus_result_on_another_device(attack, defense, digits):
    there = attacked(attack, "cpu", digits, defense)
    with simulated() as log:
        here = attacked(attack, NAME, digits, defense)
    assert (here.status, here.reason) == (there.status, there.reason)
    assert here.status in ("ok", "budget_exhausted")
    found, expected = here.reconstruction, there.reconstruction
    assert found.images.device.type == NAME
    assert all(same(getattr(found, name), getattr(expected, name)) for name in ("images", "labels", "certified"))
    assert log.waits_in("attacks") <= WAITS[attack.partition(":")[0]], log.waits.most_common(10)


@pytest.mark.parametrize("defense", DEFENDED)
def test_a_client_sends_the_cpus_update_from_another_device(defense, digits):
    there = observe("cpu", digits, defense).update
    with simulated() as log:
        here = observe(NAME, digits, defense).update
    assert {tensor.device.type for tensor in here.tensors.values()} == {NAME}
    assert all(same(here.tensors[name], tensor) for name, tensor in there.tensors.items())
    assert not [line for line in log.copies if line.startswith("defenses/")]
    assert log.waits_in("defenses") <= 20  # two for each of the ten local steps that there are at most


def test_what_does_not_mix_on_a_real_device_is_refused():
    with simulated():
        here, there = torch.arange(4.0, device=NAME), torch.arange(4.0)
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            here + there
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            torch.cat([here, there])
        with pytest.raises(RuntimeError, match="a generator of another device"):
            torch.rand(4, generator=torch.Generator(), device=NAME)
        with pytest.raises(RuntimeError, match="a generator of another device"):
            torch.rand(4, generator=torch.Generator(NAME))
        with pytest.raises(TypeError, match="copy it to the CPU first"):
            here.numpy()
        assert torch.equal(held(here * there[2] + 1), there * 2 + 1)  # one number may come from the CPU
        assert torch.equal(held(here[[1, 2]]), there[1:3])


@pytest.mark.parametrize(
    ("asks", "waits"),
    [
        (lambda x: float(x.sum()), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 1], 1),
        (lambda x: bool((x > 1).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.linalg.inv(torch.diag(x + 1)), 1),
        (lambda x: x.masked_fill(x > 1, 0), 0),
        (lambda x: torch.where(x > 1, x, 0).sort().values, 0),
        (lambda x: x.clone().index_fill_(0, x.argmax()[None], 0), 0),
    ],
)
def test_what_a_host_waits_for_is_counted(asks, waits):
    with simulated() as log:
        x = torch.arange(4.0, device=NAME)
        before = sum(log.waits.values())
        asks(x)
    assert sum(log.waits.values()) - before == waits
