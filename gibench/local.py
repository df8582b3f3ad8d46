"""Local training as a pure function: what FedAvg's clients do, and what an attack that simulates them does again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gibench.defense import Batch, Parameters


def local_sgd(
    step: Callable[[Parameters, Batch], Parameters],
    parameters: Parameters,
    batches: Iterable[Batch],
    lr: float,
    momentum: float = 0.0,
) -> Parameters:
    """The parameters after one step of SGD a batch, as `torch.optim.SGD` makes them; the velocity starts at zero.

    Differentiable in the batches where `step` is, as `gibench.buffers.mean_gradient` is.

    Args:
        step: parameters and a batch to the gradient, one tensor a parameter.
        parameters: where it starts; they are left as they are.
        batches: in the order of the steps.
        lr: learning rate.
        momentum: of each step's gradient, what the next step goes on with; 0 to below 1.
    """
    velocity: Parameters = {}
    for batch in batches:
        gradient = step(parameters, batch)
        velocity = {name: momentum * velocity[name] + gradient[name] for name in gradient} if velocity else gradient
        parameters = {name: value - lr * velocity[name] for name, value in parameters.items()}
    return parameters


def total_lr(lr: float, momentum: float, steps: int) -> float:
    """What the sum of the steps is in units of the gradient, to first order in `lr`.

    A step's gradient moves the parameters by lr times 1 + momentum + momentum^2 ..., a term for each step from its own
    to the last.
    """
    received = total = 0.0
    for _ in range(steps):  # the last step first
        received = 1 + momentum * received
        total += received
    return lr * total
