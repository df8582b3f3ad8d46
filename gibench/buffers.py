"""The clients' network: gradients of their steps, and what its forward passes leave in its buffers.

Running statistics of BatchNorm are such buffers. A client trains with those that it received, every step goes on with
what the last one left, and FedAvg averages what the clients are left with as it does their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench.defense import Gradient, Parameters

Differentiated = Callable[[Parameters, Mapping[str, Tensor], Tensor, Tensor], tuple[Parameters, dict[str, Tensor]]]


def mean_gradient(model: nn.Module) -> Gradient:
    """The gradient of the batch's mean cross-entropy as a pure function: buffers and inputs stay as they are.

    It is by the parameters that it is given; all others, which are frozen, are the model's own.
    """
    differentiated, buffers = _differentiated(model), dict(model.named_buffers())
    return lambda parameters, inputs, labels: differentiated(parameters, buffers, inputs, labels)[0]


class ClientBuffers:
    """Follows the buffers of a network from what the clients received to what each is left with.

    Args:
        model: the clients' network; it is left as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self._differentiated, self._received = _differentiated(model), dict(model.named_buffers())
        self._clients: list[dict[str, Tensor]] = []
        kept = model.state_dict()
        self._sent = [name for name, buffer in self._received.items() if name in kept and _is_number(buffer)]

    def next_client(self) -> None:
        """What follows is the training of another client."""
        self._clients.append(dict(self._received))

    def gradient(self, parameters: Parameters, inputs: Tensor, labels: Tensor) -> Parameters:
        """That of `mean_gradient`, as the client's next forward pass.

        Under `torch.func.vmap` there is no one pass, and the buffers stay as they are.
        """
        if not self._clients:
            self.next_client()
        found, left = self._differentiated(parameters, self._clients[-1], inputs, labels)
        if torch._C._functorch.peek_interpreter_stack() is None:
            self._clients[-1] = {name: buffer.detach() for name, buffer in left.items()}
        return found

    def moved(self) -> dict[str, Tensor]:
        """What the clients are left with minus what they received, averaged over them: what a `state_dict()` holds.

        Counters stay whole numbers. Without any client there is nothing.
        """
        if not self._clients:
            return {}
        return {name: self._mean(name).to(self._received[name].dtype) for name in self._sent}

    def _mean(self, name: str) -> Tensor:
        received = self._received[name]
        mean = torch.stack([client[name] - received for client in self._clients]).mean(
            0, dtype=torch.promote_types(received.dtype, torch.float32)
        )
        return mean if received.is_floating_point() else mean.round()


def _is_number(buffer: Tensor) -> bool:
    return buffer.dtype != torch.bool and not buffer.is_complex()


def _differentiated(model: nn.Module) -> Differentiated:
    """From parameters, buffers, inputs and labels to the gradient, and the buffers after the forward pass."""

    def loss(
        parameters: Parameters, buffers: Mapping[str, Tensor], inputs: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        state = {**parameters, **{name: buffer.clone() for name, buffer in buffers.items()}}
        logits = torch.func.functional_call(model, state, (inputs.clone(),))
        return functional.cross_entropy(logits, labels), {name: state[name] for name in buffers}

    return torch.func.grad(loss, has_aux=True)
