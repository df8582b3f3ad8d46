"""DP-SGD: each example's gradient, or each client's update, is clipped, and Gaussian noise is added to their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gibench import batch_norm
from gibench.defense import (
    Batch,
    Defense,
    DefenseContext,
    Gradient,
    Guarantee,
    Magnitude,
    Parameters,
    Sampler,
    Sampling,
    Updating,
)
from gibench.errors import UsageError
from gibench.observation import LocalTraining, Update

from .accounting import multiplier_for, release_epsilon, run_epsilon

_ASSUMED = {
    "poisson": "add-or-remove-one {} at a public size; run: Poisson sampling",
    "fixed": "replace-one {}; run: fixed-size sampling without replacement",
}


class DPSGD(Defense):
    """Clip per-example gradients, add noise to the sum, divide by the public batch size.

    Noise of standard deviation noise_multiplier * max_grad_norm falls on every entry of the sum. Without noise nothing
    is promised and epsilon is null (rule E12). With on=update the whole update of each client is clipped, and noise
    added to the sum of those (client-level DP): all a client's images are protected together, and clients count
    equally. clipping=per-layer clips each of L tensors to max_grad_norm / sqrt(L), so that the sum moves no further.

    Sums are divided by how many examples (clients) there should be, never by how many there are: so with
    sampling=poisson the figures hold for adding or removing an example, whose slot is then filled or empty. With
    sampling=fixed they hold for replacing one, which moves the sum twice as far.

    Buffers, such as BatchNorm's running statistics, are not sent: no clipping bounds what an example does to them.
    """

    references = (
        "Abadi et al., Deep Learning with Differential Privacy, CCS 2016, arXiv 1607.00133, algorithm 1",
        "McMahan et al., Learning Differentially Private Recurrent Language Models, ICLR 2018, arXiv 1710.06963",
    )

    noise_multiplier: float | None = Field(
        1.0,
        ge=0,
        le=1e6,
        description="noise on the sum, in units of the clip norm: 0, or 1e-9 to 1e6; none with target_epsilon",
    )
    target_epsilon: float | None = Field(
        None, gt=0, description="of one release; the noise multiplier is solved for it, in place of noise_multiplier"
    )
    max_grad_norm: Magnitude = Field(1.0, description="clip norm: L2, of one example's gradient, all parameters")
    clipping: Literal["flat", "per-layer"] = Field("flat", description="of all parameters together, or of each tensor")
    on: Literal["step", "update"] = Field("step", description="clip examples' gradients, or clients' whole updates")
    delta: float = Field(1e-5, gt=0, lt=1, description="of (epsilon, delta); below one over the number protected")
    sampling: Sampling = Field(
        "poisson",
        description="what the figures are for: poisson (samples of a public expected size, one example added or "
        "removed) or fixed (samples of a fixed size without replacement, one example replaced)",
    )
    run_steps: int = Field(
        1000, ge=1, le=100_000, description="updates of a planned training run, for run_epsilon; real runs count theirs"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_of_the_two(cls, settings: Any) -> Any:
        """With a target epsilon the noise multiplier is none; both, or neither, are refused."""
        noise = settings.get("noise_multiplier", None if _given(settings.get("target_epsilon")) else 1.0)
        if _given(noise) == _given(settings.get("target_epsilon")):
            raise ValueError("give noise_multiplier or target_epsilon, one of the two")
        return {**settings, "noise_multiplier": noise if _given(noise) else None}

    @field_validator("noise_multiplier")
    @classmethod
    def _nothing_or_noticeable(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < 1e-9:
            raise ValueError("the least noise with an epsilon worth a name is 1e-9: use 0 for none")
        return value

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        if self.target_epsilon is not None and multiplier_for(self.target_epsilon, self.delta) is None:
            raise ValueError(
                f"target_epsilon={self.target_epsilon:g} at delta={self.delta:g} is out of reach: no noise multiplier "
                "from 1e-9 to 1e6 gives it"
            )
        return self

    @property
    def sampler(self) -> Sampler:
        """What the run's figures are for; without noise there are none."""
        if self.noise_multiplier == 0:
            return Sampler()
        return Sampler(self.sampling, "images" if self.on == "step" else "clients")

    @property
    def keeps_buffers(self) -> bool:
        """They are made of the examples without a bound or noise, so nothing would be promised of them."""
        return True

    def check(self, context: DefenseContext) -> None:
        protected, what = self._population(context)
        if self.noise_multiplier != 0 and self.delta * protected >= 1:
            raise UsageError(
                f"dp has delta={self.delta:g}, which is not below 1/{protected}, one over the number of {what}: giving "
                "one of them away whole would satisfy it; lower delta"
            )

    def supports(self, model: nn.Module, context: DefenseContext) -> str | None:
        if self.on == "step" and any(map(batch_norm.by_batch, model.modules())):
            return (
                "dp bounds each example's gradient, and BatchNorm mixes the examples of a batch where it normalises by "
                "it: use a model without BatchNorm, or eval mode, where running statistics stand still"
            )
        return None

    def step(self, gradient: Gradient, parameters: Parameters, batch: Batch, context: DefenseContext) -> Parameters:
        """The noisy mean of the clipped per-example gradients, which are made in chunks that fit the memory budget."""
        if self.on != "step":
            return super().step(gradient, parameters, batch, context)

        def one(inputs: Tensor, label: Tensor) -> Parameters:
            return gradient(parameters, inputs[None], label[None])

        total = _zeros(parameters)
        if len(batch.labels):
            chunk = max(1, int(context.memory_mb * 2**20 / _bytes_needed(one, batch)))
            many = torch.func.vmap(one, randomness="different")
            for part in zip(torch.split(batch.inputs, chunk), torch.split(batch.labels, chunk), strict=True):
                self._add_clipped(total, many(*part))
        return self._noisy_mean(total, batch.size or context.batch_size, parameters, context)

    def average(
        self, update: Updating, parameters: Parameters, batches: Sequence[Batch], context: DefenseContext
    ) -> tuple[Update, LocalTraining | None]:
        """The noisy mean of the clients' clipped updates."""
        if self.on != "update":
            return update(parameters, batches)
        total = _zeros(parameters)
        for each in [[batch] for batch in batches] or [[]]:  # no client was drawn: still an update of its kind
            sent, training = update(parameters, each)
            self._add_clipped(total, {name: value[None] for name, value in sent.tensors.items()})
        mean = self._noisy_mean(total, context.clients, parameters, context)
        return Update(mean, sent.kind), training and replace(training, clients=context.clients)

    def guarantee(self, context: DefenseContext) -> Guarantee:
        """Epsilon of one release, and of a run of releases each of a new sample of the images (or clients).

        The run is the one that the update is part of, or a planned one of `run_steps`.
        """
        if self.noise_multiplier == 0:
            return Guarantee()
        noise, (protected, what) = self._multiplier(context), self._population(context)
        effective, steps = noise / self._weakening(context), context.rounds or self.run_steps
        drawn = context.clients * (1 if self.on == "update" else context.batch_size)
        rate = min(1.0, drawn / protected)
        run = run_epsilon(effective, self.delta, rate, steps, self.sampling)
        passes = "" if self._passes(context) == 1 else f" of {context.passes} passes over the batch"
        return Guarantee(
            epsilon=release_epsilon(effective, self.delta),
            delta=self.delta,
            accountant="analytic-gaussian",
            sampling=f"full batch, one release{passes}, {_ASSUMED[self.sampling].format(what[:-1])}",
            max_grad_norm=self.max_grad_norm,
            noise_multiplier=noise,
            run_epsilon=min((found for found in run.values() if found is not None), default=None),
            run_steps=steps,
            costs={**run, "sample_rate": rate},
        )

    def _multiplier(self, context: DefenseContext) -> float:
        """The noise multiplier that is set, or with which one release has the target epsilon."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        assert self.target_epsilon is not None  # the validators checked them
        solved = multiplier_for(self.target_epsilon, self.delta)
        assert solved is not None
        return solved * self._weakening(context)

    def _passes(self, context: DefenseContext) -> int:
        return context.passes if self.on == "step" else 1

    def _weakening(self, context: DefenseContext) -> float:
        """What the noise multiplier is divided by to be that of one Gaussian mechanism with the same privacy.

        Which slots make up a local batch, and what its sum is divided by, depends on no image. So given these, an image
        touches one step an epoch, each a Gaussian mechanism at parameters that earlier ones chose, and k of those
        compose to one of 1 / sqrt(k) the noise even so (Dong, Roth and Su, Gaussian Differential Privacy, JRSS B 2022,
        arXiv 1905.02383, corollary 3.3). All else is made of the noisy steps alone: learning rate, momentum, the steps
        and clients it is not in, what is left of the mean on release. Replacing an image moves a sum by two clip norms.
        """
        return math.sqrt(self._passes(context)) * (1 if self.sampling == "poisson" else 2)

    def _population(self, context: DefenseContext) -> tuple[int, str]:
        """Among how many one is to be hidden: the images of the split, or the clients it is enough for."""
        if self.on == "step":
            return context.dataset_size, "images"
        return max(1, context.dataset_size // context.batch_size), "clients"

    def _add_clipped(self, total: Parameters, gradients: Parameters) -> None:
        """Add the gradients `[N, ...]` of N examples, each clipped; one without a finite norm has no bound but zero."""
        gradients = {name: value.to(total[name].dtype) for name, value in gradients.items()}
        norms = torch.stack([torch.linalg.vector_norm(value.flatten(1), dim=1) for value in gradients.values()])
        bound = self.max_grad_norm
        if self.clipping == "per-layer":
            bound /= math.sqrt(len(gradients))
        else:
            norms = torch.linalg.vector_norm(norms, dim=0).expand_as(norms)
        finite = norms.isfinite()
        scales = torch.where(finite, (bound / norms).clamp(max=1), 0)
        if not bool(finite.all()):
            gradients = {name: value.nan_to_num(0, 0, 0) for name, value in gradients.items()}
        for scale, (name, value) in zip(scales, gradients.items(), strict=True):
            total[name] += torch.tensordot(scale.to(value.dtype), value, dims=1)

    def _noisy_mean(self, total: Parameters, size: int, like: Parameters, context: DefenseContext) -> Parameters:
        """The sum with noise, divided by the public number of its parts."""
        std = self._multiplier(context) * self.max_grad_norm
        for value in total.values():
            if std:
                noise = torch.randn(value.shape, generator=context.generator, device=value.device, dtype=value.dtype)
                value.add_(noise, alpha=std)
            value.div_(size)
        return {name: value.to(like[name].dtype) for name, value in total.items()}


def _given(value: Any) -> bool:
    return value is not None and value != "none"


def _zeros(parameters: Parameters) -> Parameters:
    """Where a sum is made, in single precision at least."""
    return {
        name: torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
        for name, value in parameters.items()
    }


class _Outputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of everything computed: more than is alive at once, and the same in every run."""

    total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.total += sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def _bytes_needed(one: Any, batch: Batch) -> int:
    """An upper bound of the memory that one example's gradient takes, activations included, found by computing one."""
    with _Outputs() as outputs:  # type: ignore[no-untyped-call]
        one(batch.inputs[0], batch.labels[0])
    return max(1, int(outputs.total))
