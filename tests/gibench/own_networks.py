"""Networks as people write them, for 1x8x8 images and ten classes; `test_models_module.py` names this file."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune


def layers(activation=nn.ReLU, bias=True):
    hidden = nn.Linear(64, 40, bias=bias), activation(), nn.Linear(40, 30), activation()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(30, 10))


def in_place():
    return layers(lambda: nn.ReLU(inplace=True))


def no_bias():
    return layers(bias=False)


class Functional(nn.Module):
    """ReLU as a function, reshaping by a method."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 40), nn.Linear(40, 30), nn.Linear(30, 10)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.last(F.relu(self.second(torch.relu(self.first(x)))))


class Shared(Functional):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 30)

    def forward(self, x):
        x = F.relu(self.first(x.flatten(1)))
        return self.last(F.relu(self.second(F.relu(self.first(x)))))


class Tied(Functional):
    """One weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight


class Heads(Functional):
    """Two heads whose logits are added."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(40, 10)

    def forward(self, x):
        features = F.relu(self.first(x.flatten(1)))
        return self.last(F.relu(self.second(features))) + self.other(features)


class Permuted(Functional):
    """Channels last before it is flattened."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1).flip(1).flatten(1))


class ChannelsLast(nn.Module):
    """Convolutions in another order of memory."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.body(x.contiguous(memory_format=torch.channels_last))


class Branching(Functional):
    """Goes on as the numbers that it is given say."""

    def forward(self, x):
        x = F.relu(self.first(x.flatten(1)))
        while float(x.detach().max()) > 1e6:
            x = x / 2
        return self.last(F.relu(self.second(x)))


class Fused(nn.Module):
    """Attention by torch's own kernels, which cannot be differentiated twice."""

    def __init__(self):
        super().__init__()
        self.qkv, self.last = nn.Linear(8, 24), nn.Linear(64, 10)

    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, 3)
        return self.last(F.scaled_dot_product_attention(query, key, value).flatten(1))


def dropped():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 10))


def normed():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def wide(image_shape, num_classes, width=40):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[-1] ** 2, width), nn.ReLU(), nn.Linear(width, num_classes))


class Pair(Functional):
    """Logits and features."""

    def forward(self, x):
        return super().forward(x), x


class Several(Functional):
    """As many logits as it likes."""

    def __init__(self, count=7):
        super().__init__()
        self.last = nn.Linear(30, count)


def colours():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def fails():
    raise KeyError("no such layer")


def text():
    return "a network"


def number():
    return 3


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


ready = layers()


class Written(Functional):
    """ReLUs that write over what they are given, and whose result nobody takes."""

    def forward(self, x):
        x = self.first(x.flatten(1))
        x.relu_()
        x = self.second(x)
        F.relu(x, inplace=True)
        return self.last(x)


class Clamped(Functional):
    """ReLUs by another name."""

    def forward(self, x):
        return self.last(torch.relu_(self.second(self.first(x.flatten(1)).clamp(min=0))))


class Around(Functional):
    """A way around the first ReLU."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(40, 10)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.last(F.relu(self.second(F.relu(x)))) + self.other(x)


class Transposed(Functional):
    """The first layer's weight once more, as autoencoders have it."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(64, 30)

    def forward(self, x):
        x = F.relu(self.first(x.flatten(1)))
        return self.last(F.relu(self.second(F.linear(x, self.first.weight.T))))


class BranchingTransposed(Transposed):
    """The same, and it goes on as the numbers that it is given say."""

    def forward(self, x):
        return super().forward(x if float(x.detach().max()) < 1e6 else x / 2)


class Asked(Branching):
    """Asks the first layer for its kind of numbers."""

    def forward(self, x):
        return super().forward(x.to(self.first.weight.dtype))


class NextTied(Functional):
    """One weight in the second and the third layer."""

    def __init__(self):
        super().__init__()
        self.second, self.third = nn.Linear(40, 40), nn.Linear(40, 40)
        self.third.weight, self.last = self.second.weight, nn.Linear(40, 10)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.first(x.flatten(1)))))
        return self.last(F.relu(self.third(x)))


class Named(nn.Linear):
    """A linear layer by a name of one's own."""


class Doubled(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, x):
        return F.linear(x, 2 * self.weight, self.bias)


def named():
    return nn.Sequential(nn.Flatten(), Named(64, 40), nn.ReLU(), Named(40, 30), nn.ReLU(), nn.Linear(30, 10))


def doubled():
    return nn.Sequential(nn.Flatten(), Doubled(64, 10))


class InMemory(Functional):
    """Channels last in memory, and copies."""

    def forward(self, x):
        return super().forward(x.clone().to(memory_format=torch.channels_last).float().squeeze(1).flatten(1))


class Indexed(Functional):
    """Pixels in an order that a buffer holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(64))

    def forward(self, x):
        return super().forward(x.flatten(1)[:, self.order])


def normalised(place=1):
    made = layers()
    made[place] = nn.utils.parametrizations.weight_norm(made[place])
    return made


class Unused(Functional):
    """A head beside the last one, which nothing goes through."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(30, 10)


class Cut(Functional):
    """Features that are no function of the weights any more."""

    def forward(self, x):
        return self.last(F.relu(self.second(F.relu(self.first(x.flatten(1))))).detach())


class Overwriting(Functional):
    """Changes the images that it is given."""

    def forward(self, x):
        return super().forward(x.mul_(2))


def hooked():
    made = layers()
    prune.random_unstructured(made[1], "weight", 0.3)
    return made
