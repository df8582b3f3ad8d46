"""Clients by other code than gibench's, one for each line of the table in the audit's README, by the line's name."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.gibench.audit.conftest import MEAN, RATE, SHAPE, STD, network, pictures, trained

COLOUR = (3, 32, 32)
MISSING = "is not installed: pip install 'gibench[federated]'"


@dataclass
class Sent:
    """An update, the model that its receiver has, what is told, and the truth."""

    model: nn.Module
    update: Any
    images: Tensor
    told: dict[str, Any] = field(default_factory=dict)  # of `training`
    options: dict[str, Any] = field(default_factory=dict)  # of `gibench.audit`
    mean: Any = MEAN
    std: Any = STD


class Real:
    """The frameworks' own objects."""

    def record(self, state):
        app = pytest.importorskip("flwr.app", reason=f"Flower {MISSING}")
        named = isinstance(state, dict)
        return app.ArrayRecord({name: torch.as_tensor(each) for name, each in state.items()} if named else state)

    def parameters(self, arrays):
        return pytest.importorskip("flwr.common", reason=f"Flower {MISSING}").ndarrays_to_parameters(arrays)

    def result(self, arrays):
        common = pytest.importorskip("flwr.common", reason=f"Flower {MISSING}")
        return common.FitRes(common.Status(common.Code.OK, ""), self.parameters(arrays), 8, {})

    def fl_model(self, kind, params):
        nvflare = pytest.importorskip("nvflare.app_common.abstract.fl_model", reason=f"NVFlare {MISSING}")
        return nvflare.FLModel(params_type=kind, params=params)


CLIENTS: dict[str, Callable[[], Sent]] = {}
QUICK = set()


def client(name: str, quick: bool = False) -> Callable[[Callable[[], Sent]], Callable[[], Sent]]:
    def add(make: Callable[[], Sent]) -> Callable[[], Sent]:
        CLIENTS[name] = make
        if quick:
            QUICK.add(name)
        return make

    return add


def delta(sent, kind="delta", told=None, **options):
    return Sent(sent.model, sent.delta, sent.images, told or {}, {"kind": kind, **options})


def seeded(*layers: Callable[[], nn.Module]) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(make() for make in layers))


class Residual(nn.Module):
    """Two blocks that add to what they are fed."""

    def __init__(self, width=200):
        super().__init__()
        self.first, self.last = nn.Linear(784, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, images):
        fed = torch.relu(self.first(images.flatten(1)))
        for block in self.blocks:
            fed = fed + torch.relu(block(fed))
        return self.last(fed)


def convolutional(*head: Callable[[], nn.Module]) -> nn.Sequential:
    trunk = lambda: nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU, lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1)
    return seeded(*trunk, nn.ReLU, nn.Flatten, *head)


def deep(size=784, dropout=0.0):
    drop = (lambda: nn.Dropout(dropout),) if dropout else ()
    hidden = lambda: nn.Linear(size, 200), nn.ReLU, *drop, lambda: nn.Linear(200, 200), nn.ReLU
    return seeded(nn.Flatten, *hidden, lambda: nn.Linear(200, 10))


@client("one step of SGD, MLP, 1x28x28")
def plain():
    return delta(trained(pictures()))


@client("the same, 3x32x32")
def colour():
    return delta(trained(pictures(8, COLOUR)))


@client("momentum 0.9, weight decay 1e-2, told")
def decayed():
    settings = {"momentum": 0.9, "weight_decay": 1e-2}
    return delta(trained(pictures(), **settings), told={"lr": RATE, **settings})


@client("weight decay 1e-2, not told")
def untold():
    return delta(trained(pictures(), weight_decay=1e-2), told={"lr": RATE})


@client("label smoothing 0.1")
def smoothed():
    return delta(trained(pictures(), smoothing=0.1), told={"lr": RATE})


@client("loss summed over the batch")
def summed():
    return delta(trained(pictures(), reduction="sum"), told={"lr": RATE, "reduction": "sum"})


@client("residual MLP")
def residual():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return delta(trained(pictures(), model=Residual()))


@client("CNN, two linear layers after it")
def with_head():
    head = lambda: nn.Linear(392, 150), nn.ReLU, lambda: nn.Linear(150, 10)
    made = trained(pictures(), model=convolutional(*head))
    return Sent(made.model, made.gradient, made.images, {}, {"kind": "gradient"})


@client("CNN, one linear layer after it", quick=True)
def bare():
    made = trained(pictures(2), model=convolutional(lambda: nn.Linear(392, 10)))
    attacks = ["analytic", "layer-pair", "spearpp", "invertinggradients:max_iterations=5,restarts=1", "random"]
    return Sent(made.model, made.gradient, made.images, {"batch_size": 2}, {"kind": "gradient", "attacks": attacks})


@client("Flower, `ArrayRecord` of the difference")
def flower():
    made = trained(pictures())
    update = Real().record(dict(made.delta))
    return Sent(made.model, update, made.images, {}, {"kind": "delta"})


@client("NVFlare, `FLModel` of whole weights")
def nvflare():
    made = trained(pictures())
    update = Real().fl_model("FULL", {name: each.numpy() for name, each in made.after.items()})
    return Sent(made.model, update, made.images, {}, {"weights": made.model.state_dict()})


@client("shape told as 28,28,1", quick=True)
def channels_last():
    return delta(trained(pictures()), shape=(28, 28, 1))


@client("bias of a layer missing", quick=True)
def missing():
    made = delta(trained(pictures()))
    del made.update["1.bias"]
    return made


@client("whole weights told as a delta", quick=True)
def absolute():
    made = trained(pictures())
    return Sent(made.model, made.after, made.images, {}, {"kind": "delta"})


@client("all zeros", quick=True)
def zeros():
    made = trained(pictures())
    return Sent(made.model, {name: 0 * each for name, each in made.delta.items()}, made.images)


@client("NaN in a tensor", quick=True)
def not_a_number():
    made = delta(trained(pictures()))
    made.update["3.bias"][2] = torch.nan
    return made


@client("one step of Adam", quick=True)
def adam():
    return delta(trained(pictures(), optimizer=torch.optim.Adam), kind="auto")


@client("five steps of Adam, told", quick=True)
def adam_steps():
    made = trained(pictures(40), optimizer=torch.optim.Adam, steps=5)
    return delta(made, told={"optimizer": "adam", "local_steps": 5})


@client("five steps of 8 images, told")
def steps():
    told = {"lr": RATE, "local_steps": 5, "batch_size": 40}
    return delta(trained(pictures(40), steps=5), told=told, attacks=["layer-pair"])


@client("five steps of 8 images, not told")
def steps_untold():
    return delta(trained(pictures(40), steps=5), attacks=["layer-pair"])


def half(dtype):
    made = trained(pictures())
    update = {name: each.to(dtype) for name, each in made.gradient.items()}
    return Sent(made.model, update, made.images, {}, {"kind": "gradient"})


@client("float16 gradient")
def float16():
    return half(torch.float16)


@client("bfloat16 gradient")
def bfloat16():
    return half(torch.bfloat16)


@client("dropout 0.5")
def dropout():
    made = trained(pictures(), model=deep(dropout=0.5))
    return Sent(made.model, made.gradient, made.images, {}, {"kind": "gradient"})


@client("50 steps of training before")
def pretrained():
    model = deep()
    for seed in range(1, 51):
        model = trained(pictures(seed=seed), model=model) and model
    return delta(trained(pictures(), model=copy.deepcopy(model)))


@client("std 10 % off")
def std_off():
    made = delta(trained(pictures()))
    made.std = 1.1 * STD
    return made


@client("mean and std not told")
def forgotten():
    made = delta(trained(pictures()))
    made.mean, made.std = 0, 1
    return made


@client("pixels of 0 to 255")
def bytes_():
    images = pictures()
    made = delta(trained(images, inputs=255 * images))
    made.mean, made.std = 0, 1
    return made


@client("weights of after the round")
def after():
    made = trained(pictures())
    return Sent(made.model, made.gradient, made.images, {}, {"kind": "gradient", "weights": made.after})


@client("pure noise", quick=True)
def noise():
    made = trained(pictures())
    generator = torch.Generator().manual_seed(0)
    update = {name: torch.randn(each.shape, generator=generator) for name, each in made.gradient.items()}
    return Sent(made.model, update, made.images, {}, {"kind": "gradient"})


@client("gradient of another, untrained network")
def another():
    made = trained(pictures())
    return Sent(network(seed=1), made.gradient, made.images, {}, {"kind": "gradient"})


@client("more images than the layer has neurons")
def wide():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network(SHAPE, 40)
    return delta(trained(pictures(60), model=model))


@client("Opacus, DP-SGD")
def opacus():
    from opacus import PrivacyEngine

    images, model = pictures(), network()
    received = {name: each.clone() for name, each in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    data = torch.utils.data.TensorDataset((images - MEAN) / STD, torch.arange(8))
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    options = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "poisson_sampling": False}
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_generator=torch.Generator().manual_seed(0),
        **options,
    )
    for inputs, labels in loader:
        nn.functional.cross_entropy(private(inputs), labels).backward()
        optimizer.step()
    update = {name: each - received[name] for name, each in model.state_dict().items()}
    return Sent(network(), update, images, {"lr": RATE}, {"kind": "delta", "weights": received})
