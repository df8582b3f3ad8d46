"""Gradient matching through torch's own attention, whose fast kernels have no second derivatives."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import VisionTransformer

from gibench.attack import Context
from gibench.observation import Observation, ThreatModel, Update
from gibench.registry import create

SHAPE, CLASSES = (3, 8, 8), 5


class Encoder(nn.Module):
    """Patches, positions, torch's encoder."""

    def __init__(self, norm_first=False):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 4, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images):
        return self.head(self.encoder(self.embed(images).flatten(2).mT + self.positions).mean(1))


class Attention(nn.Module):
    """One attention with its weights written out by the user, its product left to torch."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(24, 72), nn.Linear(24, CLASSES)

    def forward(self, images):
        queries, keys, values = self.qkv(images.flatten(2).reshape(-1, 8, 24)).chunk(3, 2)
        attended = functional.scaled_dot_product_attention(*(each[:, None] for each in (queries, keys, values)))
        return self.head(attended[:, 0].mean(1))


def torchvisions():
    network = VisionTransformer(8, 4, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(network.heads.head.weight, std=0.1)  # zero at first, which sends nothing back
    return network


MAKERS = {
    "torchvision": torchvisions,
    "post-norm": Encoder,
    "pre-norm": lambda: Encoder(True),
    "written out": Attention,
    "vit-tiny": lambda: create("model", "vit-tiny:patch=4,width=16,depth=2,heads=2").build(SHAPE, CLASSES),
}


def observe(maker, training):
    """What a client sends of two images, and they."""
    torch.manual_seed(0)
    model = MAKERS[maker]().train(training)
    images, labels = torch.rand(2, *SHAPE), torch.tensor([1, 3])
    half = torch.full((3,), 0.5)
    parameters = {name: each.detach() for name, each in model.named_parameters()}

    def loss(parameters):
        return functional.cross_entropy(torch.func.functional_call(model, parameters, ((images - 0.5) / 0.5,)), labels)

    update = Update(torch.func.grad(loss)(parameters))
    facts = ThreatModel.parse("batch_size,labels,local_hyperparameters")
    return Observation(model, update, SHAPE, half, half, CLASSES, facts, 2, labels, defenses=()), images


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "attack",
    [
        "dlg:max_iterations=1,optimizer=adam",
        "idlg:max_iterations=1,optimizer=adam",
        "invertinggradients:max_iterations=1,restarts=2",
        "modern:max_iterations=1",
        "invertinggradients-adaptive:max_iterations=1",
    ],
)
def test_every_matcher_runs(attack, maker, training):
    observation, _ = observe(maker, training)
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    run = create("attack", attack)(observation, Context(torch.Generator().manual_seed(0), torch.device("cpu")))
    assert (run.status, run.reason) == ("ok", "")
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == before


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("maker", MAKERS)
def test_the_clients_gradient_is_that_of_the_kernel_that_attacks_use(maker, training):
    observation, images = observe(maker, training)
    parameters = dict(observation.model.named_parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        logits = observation.model((images - 0.5) / 0.5)
        own = torch.autograd.grad(functional.cross_entropy(logits, observation.labels), list(parameters.values()))
    whole = torch.cat([each.flatten() for each in own]).norm()
    for name, each in zip(parameters, own, strict=True):
        assert float((observation.update.tensors[name] - each).norm()) < 1e-6 * float(whole), name
