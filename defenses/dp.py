"""DP-SGD: each example's gradient is clipped, and Gaussian noise is added to their sum."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gibench.defense import Batch, Defense, DefenseContext, Gradient, Guarantee, Parameters

from .accounting import release_epsilon, run_epsilon


class DPSGD(Defense):
    """Clip per-example gradients, add noise to the sum, divide by the batch size.

    Noise of standard deviation noise_multiplier * max_grad_norm falls on every entry of the sum. Without noise nothing
    is promised and epsilon is null (rule E12).
    """

    hooks = frozenset({"step"})
    references = ("Abadi et al., Deep Learning with Differential Privacy, CCS 2016, arXiv 1607.00133, algorithm 1",)

    noise_multiplier: float = Field(
        1.0, ge=0, le=1e6, description="noise on the sum, in units of the clip norm: 0, or 1e-9 to 1e6"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="clip norm: L2, of one example's gradient, all parameters")
    delta: float = Field(1e-5, gt=0, lt=1, description="of (epsilon, delta)")
    run_steps: int = Field(1000, ge=1, le=100_000, description="steps of the training run that run_epsilon_* is for")

    @field_validator("noise_multiplier")
    @classmethod
    def _nothing_or_noticeable(cls, value: float) -> float:
        if 0 < value < 1e-9:
            raise ValueError("the least noise with an epsilon worth a name is 1e-9: use 0 for none")
        return value

    def supports(self, model: nn.Module, context: DefenseContext) -> str | None:
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            return (
                "dp bounds each example's gradient, and BatchNorm mixes the examples of a batch and keeps running "
                "statistics of them: use a model without BatchNorm"
            )
        return None

    def step(self, gradient: Gradient, parameters: Parameters, batch: Batch, context: DefenseContext) -> Parameters:
        """The noisy mean of the clipped per-example gradients, which are made in chunks that fit the memory budget."""

        def one(inputs: Tensor, label: Tensor) -> Parameters:
            return gradient(parameters, inputs[None], label[None])

        chunk = max(1, int(context.memory_mb * 2**20 / _bytes_needed(one, batch)))
        dtypes = {name: torch.promote_types(value.dtype, torch.float32) for name, value in parameters.items()}
        total = {name: torch.zeros_like(value, dtype=dtypes[name]) for name, value in parameters.items()}
        many = torch.func.vmap(one, randomness="different")
        for inputs, labels in zip(torch.split(batch.inputs, chunk), torch.split(batch.labels, chunk), strict=True):
            gradients = {name: value.to(dtypes[name]) for name, value in many(inputs, labels).items()}
            scale = self._clip_scale(gradients)
            for name, value in gradients.items():
                total[name] += torch.tensordot(scale.to(value.dtype), value, dims=1)
        std = self.noise_multiplier * self.max_grad_norm
        for value in total.values():
            if std:
                noise = torch.randn(value.shape, generator=context.generator, device=value.device, dtype=value.dtype)
                value.add_(noise, alpha=std)
            value.div_(len(batch.labels))
        return {name: value.to(parameters[name].dtype) for name, value in total.items()}

    def guarantee(self, context: DefenseContext) -> Guarantee:
        """Epsilon of one release; whole-run figures are for Poisson sampling at batch size over split size."""
        if self.noise_multiplier == 0:
            return Guarantee()
        rate = context.batch_size / context.dataset_size
        return Guarantee(
            epsilon=release_epsilon(self.noise_multiplier, self.delta),
            delta=self.delta,
            accountant="analytic-gaussian",
            sampling="full batch, one release, add-or-remove-one adjacency",
            costs={
                **run_epsilon(self.noise_multiplier, self.delta, rate, self.run_steps),
                "run_steps": self.run_steps,
                "sample_rate": rate,
            },
        )

    def _clip_scale(self, gradients: Parameters) -> Tensor:
        """What each example's gradient is multiplied by `[N]`: 1 within the clip norm."""
        norms = torch.stack([torch.linalg.vector_norm(value.flatten(1), dim=1) for value in gradients.values()])
        scale: Tensor = self.max_grad_norm / torch.linalg.vector_norm(norms, dim=0)
        return scale.clamp(max=1)


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
