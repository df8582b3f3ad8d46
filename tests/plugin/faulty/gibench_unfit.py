"""Plugins that run, each with one fault that the conformance kit is there to find, and one of each kind without any."""

import math
import time
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from gibench.attack import Attack, Reconstruction
from gibench.datasets.base import Dataset, Images, Split
from gibench.datasets.digits import Digits
from gibench.defense import Defense, Guarantee
from gibench.experiment import load
from gibench.models.base import Model
from gibench.observation import Update


class Fit(Attack):
    """Each row of the first layer's gradient over its bias entry; keeps to all that is asked of it."""

    images: int = Field(4, ge=1, description="of them that are returned at most")

    def supports(self, observation):
        names = [name for name, _ in observation.model.named_parameters()][:2]
        if len(names) < 2 or not names[1].endswith("bias") or not set(names) <= observation.update.tensors.keys():
            return "it needs the gradient of a first layer with a bias"
        weight = observation.update.tensors[names[0]]
        fits = weight.ndim == 2 and weight.shape[1] == math.prod(observation.image_shape)
        return None if fits else "its first layer takes no images"

    def reconstruct(self, observation, context):
        weight, bias = list(observation.in_single().gradient().values())[:2]
        strongest = bias.abs().argsort(descending=True, stable=True)[: self.images]
        rows = weight[strongest] / bias[strongest, None]
        images = observation.denormalize(rows.reshape(-1, *observation.image_shape)).nan_to_num(0.5, 1, 0)
        return Reconstruction(images.clamp(0, 1), diagnostics={"rows": len(rows)})


class Undocumented(Fit):
    """Has a setting of which nobody knows what it does."""

    secret: int = 3


class Deaf(Fit):
    """Never ends."""

    def reconstruct(self, observation, context):
        while True:
            time.sleep(0.01)


class Misshapen(Fit):
    """Returns images without channels."""

    def reconstruct(self, observation, context):
        return Reconstruction(super().reconstruct(observation, context).images.flatten(1))


class Normalised(Fit):
    """Returns what the network takes."""

    def reconstruct(self, observation, context):
        return Reconstruction(observation.normalize(super().reconstruct(observation, context).images) - 1)


class Restless(Fit):
    """Draws from the clock."""

    def reconstruct(self, observation, context):
        images = super().reconstruct(observation, context).images
        return Reconstruction(images * (0.9 + 1e-4 * (time.perf_counter_ns() % 997) / 997))


class Homebound(Fit):
    """Remembers, in its process, how often it was called before."""

    seen: ClassVar[set] = set()

    def reconstruct(self, observation, context):
        images = super().reconstruct(observation, context).images
        order = list({str(number) for number in range(50)})  # of the process's own hash seed
        return Reconstruction(images * (0.9 + 1e-3 * int(order[0])))


class OfTheCpu(Fit):
    """Makes a tensor where it happens to be made."""

    def reconstruct(self, observation, context):
        images = super().reconstruct(observation, context).images
        return Reconstruction((images + torch.zeros(images.shape)).clamp(0, 1))


class Scribbles(Fit):
    """Writes over the update that it is shown."""

    def reconstruct(self, observation, context):
        found = super().reconstruct(observation, context)
        for tensor in observation.update.tensors.values():
            tensor.zero_()
        return found


class Leaves(Fit):
    """Leaves a default changed in its process."""

    def reconstruct(self, observation, context):
        torch.set_default_dtype(torch.float64)
        return super().reconstruct(observation, context)


class Prints(Fit):
    """Talks where rows are printed."""

    def reconstruct(self, observation, context):
        print("hello")
        return super().reconstruct(observation, context)


class Peeks(Fit):
    """Returns what it finds in the data set."""

    def reconstruct(self, observation, context):
        return Reconstruction(load("digits").private.images[: self.images].to(context.device))


class Crashes(Fit):
    """Takes every network for one whose first layer takes images."""

    def supports(self, observation):
        return None


class Shy(Fit):
    """Fails where there is one image."""

    def reconstruct(self, observation, context):
        if observation.batch_size == 1:
            raise ValueError("too few")
        return super().reconstruct(observation, context)


class Guesses(Fit):
    """Finds nothing, and does not say that it is a control."""

    def reconstruct(self, observation, context):
        return Reconstruction(torch.full((1, *observation.image_shape), 0.0, device=context.device))


class FitDefense(Defense):
    """Sends the signs of the update; keeps to all that is asked of it."""

    def release(self, update, context):
        return Update({name: value.sign() for name, value in update.tensors.items()}, update.kind)


class Idle(FitDefense):
    """Changes nothing."""

    def release(self, update, context):
        return update


class Writes(FitDefense):
    """Works in place."""

    def step(self, gradient, parameters, batch, context):
        found = gradient(parameters, batch.inputs, batch.labels)
        batch.inputs.zero_()
        return found


class Divides(Defense):
    """Divides by how many examples came."""

    def step(self, gradient, parameters, batch, context):
        found = gradient(parameters, batch.inputs, batch.labels)
        return {name: value * len(batch.labels) / torch.tensor(len(batch.labels)) for name, value in found.items()}


class Ambient(FitDefense):
    """Draws its noise from a global generator and leaves that changed."""

    def release(self, update, context):
        return Update({name: value + torch.rand_like(value) for name, value in update.tensors.items()}, update.kind)


class Claims(FitDefense):
    """States an epsilon and not what it is of."""

    def guarantee(self, context):
        return Guarantee(epsilon=1.0)


class FitDataset(Dataset):
    """The digits; keeps to all that is asked of it."""

    bundled = True

    def load(self):
        return Digits().load()


class Leaks(FitDataset):
    """Has private images among the public ones."""

    def load(self):
        images = Digits().load()
        both = Split(*(torch.cat(pair) for pair in zip(*map(_parts, (images.public, images.private)), strict=True)))
        return Images(images.private, images.tuning, both, both, images.classes, images.mean, images.std)


class Shuffles(FitDataset):
    """Has other splits each time."""

    def load(self):
        images = Digits().load()
        order = torch.randperm(len(images.private))
        private = Split(images.private.images[order], images.private.labels[order])
        return Images(private, images.tuning, images.public, images.training, images.classes, images.mean, images.std)


def _parts(split):
    return split.images, split.labels


class FitModel(Model):
    """Softmax regression; keeps to all that is asked of it."""

    builds_on_meta = True

    def build(self, image_shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))


class Same(FitModel):
    """Has the same weights for every seed."""

    def build(self, image_shape, num_classes):
        network = super().build(image_shape, num_classes)
        nn.init.constant_(network[1].weight, 0.01)
        nn.init.zeros_(network[1].bias)
        return network


class Small(FitModel):
    """Cannot take every image, and says nothing of it."""

    builds_on_meta = False

    def build(self, image_shape, num_classes):
        return nn.Sequential(nn.Conv2d(image_shape[0], 2, 4), *super().build((2, 5, 5), num_classes))


class _Held(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.shift = inner, torch.ones(1)

    def forward(self, inputs):
        return self.inner(inputs + self.shift)


class Held(FitModel):
    """Holds a tensor that is neither a parameter nor a buffer."""

    def build(self, image_shape, num_classes):
        return _Held(super().build(image_shape, num_classes))
