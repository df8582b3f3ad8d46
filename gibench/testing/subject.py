"""What is checked, and what all checks share: scenarios, runs of a plugin, what must be as it was afterwards."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibench import fingerprint, seeds
from gibench.cell import Cell
from gibench.jsonable import LEFT_OUT, jsonable
from gibench.registry import create, resolve
from gibench.stages import Preparation, facts_of
from gibench.sweep.suite import Suite
from gibench.testing.device import DeviceTensor

PATIENCE = 30.0  # seconds that an attack may take after its deadline
LIMIT = 900.0  # seconds of any run, which a busy machine keeps, too
# The axes that a plugin does not set: as small as what is checked allows.
HOME = {
    "attack": "mean-image", "dataset": "digits", "model": "mlp:width=50,depth=2", "batch_size": 2, "device": "cpu",
    "threads": 1,
}  # fmt: skip


class FaultError(Exception):
    """What a check finds wrong, in words."""


class UnpreparedError(FaultError):
    """A cell has nothing to attack, for the reason that is told."""


class NotHereError(Exception):
    """There is nothing to check, for the reason that is told."""


def silent(message: str, fraction: float | None = None) -> None:
    """Progress that nobody sees."""


class Subject:
    """A plugin, and the scenario in which it is at its best."""

    kind = ""

    def __init__(self, spec: str, home: Mapping[str, Any]) -> None:
        self.spec = str(resolve(self.kind, spec))
        self.plugin: Any = create(self.kind, self.spec)
        self.home = HOME | dict(home) | {self.kind: self.spec}
        self.cell()  # so that a wrong scenario is no fault of the plugin's

    def cell(self, **changes: Any) -> Cell:
        """The cell at home, but for some axes.

        Raises:
            UsageError: there is none.
        """
        (cell,) = Suite.from_settings("the home scenario", {**self.home, **changes}).cells()
        return cell

    def prepared(self, **changes: Any) -> tuple[Preparation, Any]:
        """The side of a cell that holds the truth, and what there is to attack.

        Raises:
            UnpreparedError: there is nothing to attack.
        """
        cell = self.cell(**changes)
        preparation = Preparation(cell, facts_of(cell.attack), silent)
        observation = preparation.observe()
        if observation is None:
            row = preparation.result().row
            raise UnpreparedError(f"the cell is {row.status}: {row.reason}")
        return preparation, observation


def settings(subject: Subject) -> str:
    """Says what it is and what each of its settings does, all of it fit for JSON."""
    kind = type(subject.plugin)
    if not (kind.__doc__ or "").strip():
        raise FaultError(f"{kind.__name__} has no docstring: it is what `gibench list` shows")
    if bare := [name for name, field in kind.model_fields.items() if not field.description]:
        raise FaultError(
            f"its setting {bare[0]} has no description: write {bare[0]}: TYPE = Field(DEFAULT, description=...)"
        )
    for name in ("references", "budget"):
        said = getattr(subject.plugin, name, None)
        if not (said is None or isinstance(said, str if name == "budget" else tuple)):
            raise FaultError(
                f"`{name}` is {said!r}, where {'a text' if name == 'budget' else 'a tuple of texts'} is due"
            )
    subject.plugin.check_settings(f"{subject.kind} '{subject.spec}'")
    return f"{len(kind.model_fields)} settings"


def refuse_unjsonable(what: str, value: Any) -> None:
    """Find out whether what is logged arrives as it was given.

    Raises:
        FaultError: it does not.
    """
    text = json.dumps(jsonable(value))
    if " object at 0x" in text or f'"{LEFT_OUT}' in text:
        raise FaultError(f"{what} hold what JSON cannot: give numbers, texts, and lists and mappings of them")


def tensors_of(value: Any, name: str = "it") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a value, by where they are in it."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        yield from ((f"{name}.{key}", tensor) for key, tensor in value.state_dict().items())
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from tensors_of(each, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from tensors_of(each, f"{name}[{number}]")
    elif hasattr(value, "__dataclass_fields__"):
        for key, each in vars(value).items():
            yield from tensors_of(each, key if name == "it" else f"{name}.{key}")


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bits."""
    return one.shape == other.shape and one.dtype == other.dtype and bool(torch.equal(_bits(one), _bits(other)))


def _bits(tensor: Tensor) -> Tensor:
    return (tensor.held if isinstance(tensor, DeviceTensor) else tensor).detach().nan_to_num(nan=0.5)


@contextmanager
def unchanged(**shown: Any) -> Iterator[None]:
    """Let the body leave what it is shown as it is.

    Raises:
        FaultError: a tensor, a network's mode, hooks or what asks for a gradient is another afterwards.
    """
    before = copy.deepcopy(shown)
    marks = _marks(shown)
    yield
    for (name, tensor), (_, old) in zip(tensors_of(shown, "shown"), tensors_of(before, "shown"), strict=True):
        if not same(tensor, old):
            raise FaultError(f"it wrote over {name.removeprefix('shown.')}: work on a copy")
    if _marks(shown) != marks:
        raise FaultError("it left the network in another mode, or with hooks or gradients on it: work on a copy")


def _marks(shown: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = []
    for value in shown.values():
        network = value if isinstance(value, nn.Module) else getattr(value, "model", None)
        if isinstance(network, nn.Module):
            found += [
                (each.training, len(each._forward_hooks), len(each._forward_pre_hooks)) for each in network.modules()
            ]
            found += [(each.requires_grad, each.grad is None) for each in network.parameters()]
    return found


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Let the body leave the process as it is: defaults, generators, folder, environment, libraries, standard output.

    Raises:
        FaultError: it does not.
    """
    printed = io.StringIO()
    code = fingerprint.Code()
    with redirect_stdout(printed), seeds.isolated(0, "attack"):  # which puts back what is most often changed
        state = fingerprint.State()
        yield
        changes = state.changes() + code.changes()
    if changes:
        raise FaultError(f"it left changed in its process: {', '.join(changes)}")
    if printed.getvalue():
        raise FaultError(f"it prints on standard output ({printed.getvalue()[:40]!r}): rows alone go there")


def stir(value: int) -> None:
    """Give every global generator another state."""
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)
