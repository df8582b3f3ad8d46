"""What an attack's process is told, and what comes back: numbers and text, so that reading it runs none of its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from safetensors.torch import load, save
from torch import Tensor

from gibench import seeds
from gibench.attack import AttackRun, Reconstruction
from gibench.cell import Cell
from gibench.jsonable import jsonable
from gibench.result import Status
from gibench.text import one_line

OVERRAN = "the attack ran on past its deadline and was stopped: raise --timeout"
_TENSORS = ("images", "labels", "certified")


@dataclass(frozen=True)
class Task:
    """What an attack is to be run with, beside the observation; nothing here tells another role's seed."""

    attack: str  # its spec
    seed: int  # of its generators, see `gibench.seeds.derive`
    device: str
    threads: int
    timeout: float | None

    @classmethod
    def of(cls, cell: Cell) -> Self:
        return cls(cell.attack, seeds.derive(cell.seed, "attack"), cell.device, cell.threads, cell.timeout)


@dataclass(frozen=True)
class Facts:
    """What an attack says of itself before it is shown anything, see `gibench.attack.Attack`."""

    adaptive: bool = False
    oracle: bool = False
    control: bool = False
    budget: str | None = None
    foreign: bool = False


@dataclass(frozen=True)
class Outcome:
    """How an attack ended, and what it found: images on the CPU, best first, and strict JSON."""

    status: Status
    reason: str
    reconstruction: Reconstruction | None = None
    n_reconstructed: int = 0  # by the attack's own count
    runtime_s: float | None = None
    peak_memory_mb: float | None = None
    seconds: float | None = None  # of the whole stage, its set-up and checks included
    traceback: str | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: AttackRun) -> Self:
        """What one timed call of an attack gave."""
        found = run.reconstruction
        kept = found and Reconstruction(found.images.cpu(), _on_cpu(found.labels), _on_cpu(found.certified))
        return cls(
            run.status,
            one_line(run.reason),
            kept,
            run.n_reconstructed,
            run.runtime_s,
            run.peak_memory_mb,
            diagnostics=jsonable(found.diagnostics) if found else {},
        )

    def packed(self) -> tuple[dict[str, Any], bytes]:
        """As JSON and tensors, to be sent."""
        found = self.reconstruction
        tensors = {name: getattr(found, name) for name in _TENSORS} if found else {}
        given = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        head = {name: value for name, value in vars(self).items() if name != "reconstruction"}
        return head, save(given) if given else b""

    @classmethod
    def unpacked(cls, head: Mapping[str, Any], body: bytes) -> Self:
        """What `packed` made.

        Raises:
            Exception: of any kind, where something else was sent.
        """
        tensors = load(body) if body else {}
        found = Reconstruction(tensors["images"], tensors.get("labels"), tensors.get("certified")) if body else None
        outcome = cls(**head, reconstruction=found)
        if outcome.status not in get_args(Status) or type(outcome.n_reconstructed) is not int:
            raise ValueError(f"'{outcome.status}' is no outcome")
        return outcome


def _on_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
