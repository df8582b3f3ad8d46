"""Attacks on the audited update, one after the other in order of cost, within one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gibench import seeds
from gibench.attack import Attack, Context, Reconstruction
from gibench.audit.looks import Looks, pruned
from gibench.audit.pixels import on_grid
from gibench.audit.residual import Residual, residual
from gibench.deadline import DeadlinePassed, grace, hard_stop
from gibench.errors import AttackError
from gibench.jsonable import jsonable
from gibench.observation import Observation
from gibench.registry import create
from gibench.spec import parse
from gibench.text import one_line

EXPLAINED = 0.1  # residual below which candidates are said to reproduce the update
_EXACT = ("analytic", "layer-pair", "spearpp")
_MATCHING, _CONTROL = "invertinggradients", "random"
_SEED = 0
_LEAST = 1e-3  # seconds: a timer of none would never ring


@dataclass(frozen=True)
class Attempt:
    """One attack's outcome. The images found are pixels by the stated mean and std, and may leave [0, 1]."""

    attack: str
    status: str
    reason: str
    seconds: float | None = None
    found: Reconstruction | None = None
    residual: Residual | None = None
    on_grid: Tensor | None = None  # [N] booleans: every pixel lies on the 8-bit grid

    @property
    def settings(self) -> dict[str, str]:
        """Of the attack, defaults included."""
        return create("attack", self.attack).settings()

    @property
    def control(self) -> bool:
        """Whether it is a control, which finds nothing and shows what nothing is worth."""
        return bool(cast(Attack, create("attack", self.attack)).control)

    @property
    def certified(self) -> int:
        """Images that the attack certifies."""
        sure = self.found.certified if self.found else None
        return 0 if sure is None else int(sure.sum())

    @property
    def share(self) -> float:
        """What is left of the update; infinity where that is not known."""
        return self.residual.share if self.residual else float("inf")

    @property
    def order(self) -> tuple[float, ...]:
        """Smaller is better: certified, then explaining the update, then on the grid, then what is left."""
        grid = 0 if self.on_grid is None else int(self.on_grid.sum())
        return -self.certified, min(self.share, EXPLAINED), -grid, self.share

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types, without what was found."""
        return {
            "attack": self.attack,
            "status": self.status,
            "reason": self.reason or None,
            "seconds": jsonable(self.seconds),
            "candidates": len(self.found.images) if self.found else 0,
            "certified": self.certified,
            "residual": self.residual.share if self.residual else None,
            "control": self.control,
            "settings": self.settings,
        }

    @property
    def complete(self) -> bool:
        """Whether every image of the update is found and certified."""
        rank = self.found.diagnostics.get("rank", -1) if self.found else -1
        return self.certified > 0 and self.certified == rank and self.share < EXPLAINED


def plan(looks: Looks, local_steps: int | None) -> list[str]:
    """What is tried by itself, cheapest first, with the variants that the update's looks call for."""
    variants = [
        ("spearpp-pruned", pruned(looks)),
        ("spearpp-quantized", looks.quantized),
        ("spearpp-local-steps", (local_steps or 1) > 1),
    ]
    return [*_EXACT, *(name for name, wanted in variants if wanted), _MATCHING, _CONTROL]


def reads_layers(spec: str) -> bool:
    """Whether the attack reads what a linear layer is fed off its gradient, whatever that is."""
    return parse(spec).name.startswith(("layer-pair", "spearpp"))


def attempt_all(
    observation: Observation,
    attacks: Sequence[str],
    device: torch.device,
    deadline: float,
    progress: Callable[[str, float | None], None],
    chosen: bool,
) -> list[Attempt]:
    """Run them until one has certified every image, or the deadline has passed.

    Args:
        observation: what they are shown.
        attacks: specs, in order.
        device: where to compute.
        deadline: of `time.monotonic()`.
        progress: told what is being done.
        chosen: whether the user named the attacks; else gradient matching, and a control beside it, is left to models
            that no other applies to.
    """
    done: list[Attempt] = []
    for spec in attacks:
        applied = any(each.status not in ("skipped", "not tried") for each in done)
        beside = any(each.attack == _MATCHING and each.found for each in done)  # there is something to compare with it
        if any(each.complete for each in done):
            done.append(Attempt(spec, "not tried", "every image is certified already"))
        elif not chosen and spec == _CONTROL and not beside:
            done.append(Attempt(spec, "not tried", "a control stands beside gradient matching, which gave nothing"))
        elif not chosen and spec == _MATCHING and applied:
            done.append(Attempt(spec, "not tried", "attacks that recover images exactly apply to this model"))
        elif time.monotonic() >= deadline and not (beside and spec == _CONTROL):
            done.append(Attempt(spec, "not tried", "the budget is spent: raise it"))
        else:
            progress(f"trying {spec}", None)
            done.append(_attempt(observation, spec, device, deadline, progress))
    return done


def best(attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt that has most to show for itself, see `Attempt.order`; None where nothing but controls found any."""
    found = [each for each in attempts if each.found is not None and len(each.found.images) and not each.control]
    return min(found, key=lambda each: each.order, default=None)


def inputs_of(observation: Observation, images: Tensor) -> Tensor:
    """What the model takes, as it was recovered."""
    return observation.normalize(images.double())


def _attempt(
    observation: Observation,
    spec: str,
    device: torch.device,
    deadline: float,
    progress: Callable[[str, float | None], None],
) -> Attempt:
    """One attack, which is asked to end some time before the deadline and ended by then."""
    attack = cast(Attack, create("attack", spec))
    start = time.perf_counter()
    left = max(deadline - time.monotonic(), _LEAST)
    asked = deadline - min(grace(left), left / 2)
    context = Context(_generator(device), device, asked, progress, clamp=False)
    try:
        with seeds.isolated(_SEED, "attack"), hard_stop(left):
            run = attack(observation, context)
    except DeadlinePassed:
        return Attempt(spec, "timeout", "was ended at the end of the budget: raise it", time.perf_counter() - start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an attack that fails is told beside those that do not
        cause = one_line(error) if isinstance(error, AttackError) else f"{type(error).__name__}: {one_line(error)}"
        return Attempt(spec, "failed", cause, time.perf_counter() - start)
    found = run.reconstruction
    explained = near = None
    if found is not None and len(found.images):
        shown = observation.to(device)
        inputs = inputs_of(shown, found.images)
        explained, near = residual(shown, inputs), on_grid(inputs, shown.mean, shown.std)
    reason = "it had until the end of the budget: raise it" if run.status == "timeout" else run.reason
    return Attempt(spec, run.status, reason, run.runtime_s, found, explained, near)


def _generator(device: torch.device) -> torch.Generator:
    return seeds.generator(_SEED, "attack", device)
