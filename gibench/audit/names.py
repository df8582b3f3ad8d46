"""Fits what was read to the model: which tensor is which parameter, and whether its numbers can be an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gibench.audit.blocks import not_finite
from gibench.audit.readers import Sent, read
from gibench.errors import UsageError
from gibench.training import trainable

_SHOWN = 4  # names in a message
_PREFIXES = ("module.", "model.", "_orig_mod.", "_module.")  # what wrappers put before a model's own names


def numbers(model: nn.Module) -> int:
    """How many the model's state has, buffers included."""
    return sum(value.numel() for value in model.state_dict().values())


def by_name(sent: Sent, model: nn.Module, what: str) -> dict[str, Tensor]:
    """The tensors by the names of the model's parameters and buffers, in the model's order.

    A list is in the order of `state_dict()`, buffers included, as Flower's NumPy client sends it, or of the trainable
    parameters alone.

    Raises:
        UsageError: missing or unknown names, another number of tensors, or other shapes.
    """
    state = model.state_dict()
    due = list(trainable(model))
    if isinstance(sent, list):
        names = next((each for each in (list(state), due) if len(each) == len(sent)), None)
        if names is None:
            raise UsageError(
                f"the {what} is a list of {len(sent)} arrays, and the model has {len(due)} trainable parameters "
                f"({len(state)} entries with buffers, in the order of state_dict()): send one of the two"
            )
        sent = dict(zip(names, sent, strict=True))
    if unknown := [name for name in sent if name not in state]:
        raise UsageError(_unknown(unknown, state, what))
    if missing := [name for name in due if name not in sent]:
        raise UsageError(f"the {what} lacks {_some(missing)}: it must hold every trainable parameter of the model")
    for name, tensor in sent.items():
        if tensor.shape != state[name].shape:
            raise UsageError(
                f"the {what} has shape {list(tensor.shape)} at '{name}', and the model {list(state[name].shape)}: "
                "it is of another model, or its arrays are in another order"
            )
    return {name: sent[name] for name in state if name in sent}


def parameters(named: Mapping[str, Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    """Those that a client trains, checked: floating point and finite.

    Raises:
        UsageError: whole numbers, NaN or infinity; the message names the tensor.
    """
    found = {name: named[name] for name in trainable(model)}
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UsageError(f"the {what} holds {kind} at '{name}': send floating-point numbers")
        if bad := not_finite(tensor):
            raise UsageError(
                f"the {what} holds NaN or infinity at '{name}' ({bad} entries): nothing can be read off it"
            )
    return found


def buffers(named: Mapping[str, Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    """What else is in a `state_dict()`: running statistics and counters, if they were sent.

    Raises:
        UsageError: NaN or infinity; the message names the tensor.
    """
    found = {name: named[name] for name, _ in model.named_buffers() if name in named}
    for name, tensor in found.items():
        if bad := not_finite(tensor):
            raise UsageError(f"the {what} holds NaN or infinity at '{name}' ({bad} entries): leave buffers out")
    return found


def load(weights: Any, model: nn.Module) -> dict[str, Tensor]:
    """Give the model weights that were read, and say which.

    Args:
        weights: as for `gibench.audit.readers.read`.
        model: changed in place.

    Raises:
        UsageError: they are of another model, hold Python objects, NaN or infinity, or cannot be read.
    """
    found = by_name(read(weights, "weights", numbers(model)), model, "weights")
    parameters(found, model, "weights")
    model.load_state_dict(found, strict=False)
    return found


def _unknown(unknown: list[str], state: Mapping[str, Tensor], what: str) -> str:
    message = f"the {what} has {_some(unknown)}, which the model has not: it has {_some(list(state))}"
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in unknown):
            return f"{message}; leave out the prefix '{prefix}'"
    return f"{message}; use the names of state_dict(), or an ordered list"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
