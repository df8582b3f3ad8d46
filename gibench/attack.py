"""The contract of an attack: it turns an observation into a reconstruction; the harness checks and times it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, final, get_args

import torch
from pydantic import model_validator
from torch import Tensor, nn

from gibench.device import PeakMemory, synchronize, warm_up
from gibench.errors import AttackError, PluginError
from gibench.observation import Observation, Update
from gibench.plugin import Plugin, reason_of
from gibench.text import one_line
from gibench.threat_model import KNOWLEDGE

Outcome = Literal["ok", "budget_exhausted", "diverged"]
_BESIDE, _MOST_BESIDE = 0.5 / 255, 1 / 3  # beyond [0, 1] by half a grey level, and the share that noise may put there
MOST_IMAGES = 10_000  # of a reconstruction, the first ones, that are looked at; no batch is larger


def _silent(message: str, fraction: float | None = None) -> None:
    """The progress callback that shows nothing."""


@dataclass(frozen=True)
class Context:
    """What the harness lends an attack for one run."""

    generator: torch.Generator  # on `device`, seeded from the cell
    device: torch.device
    deadline: float | None = None  # of time.monotonic(), in seconds
    progress: Callable[[str, float | None], None] = _silent  # what is being done, and the share done if known
    clamp: bool = True  # pixels to [0, 1]; an audit, which may be told a wrong mean and std, sees what leaves them

    def expired(self) -> bool:
        """Whether the wall-clock deadline has passed; an attack that asks often returns what it has by then."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True)
class Reconstruction:
    """An attack's result, best image first; the number of images may differ from the true batch size.

    As many images as the true batch has are scored, the first ones.
    `certified` is the attack's own claim, image by image, that it is exact; the harness counts the false ones.
    `diagnostics` (numbers, texts, flat lists or mappings of them) is logged as it is.
    """

    images: Tensor  # [N, C, H, W] in [0, 1]
    labels: Tensor | None = None  # [N]
    certified: Tensor | None = None  # [N] booleans
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    status: Outcome = "ok"
    reason: str = ""


@dataclass(frozen=True)
class AttackRun:
    """One timed call of an attack. `reconstruction` is None when the attack was skipped."""

    status: Literal["ok", "budget_exhausted", "diverged", "skipped", "timeout"]
    reason: str
    reconstruction: Reconstruction | None
    runtime_s: float | None = None
    peak_memory_mb: float | None = None  # the attack's own; None where it cannot be measured
    n_reconstructed: int = 0  # images that the attack returned, also those beyond the first `MOST_IMAGES`


class Attack(Plugin, ABC):
    """Base of all attacks. A plugin writes `reconstruct` and may override `supports`; its fields are its settings."""

    requires: ClassVar[frozenset[str]] = frozenset()  # facts of gibench.threat_model.KNOWLEDGE it cannot do without
    references: ClassVar[tuple[str, ...]] = ()  # papers it implements
    adaptive: ClassVar[bool] = False  # knows the defense (rule E14); may be a property, where a setting decides
    oracle: ClassVar[bool] = False  # picks something with the truth (rule E2)
    control: ClassVar[bool] = False  # a negative control: what does not beat it has found nothing (rule E15)
    foreign: ClassVar[bool] = False  # a control that the harness shows the update of other images, in place of the true

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            raise PluginError(
                f"{cls.__name__} defines __call__, which belongs to the harness: write reconstruct instead"
            )

    @model_validator(mode="after")
    def _says_what_it_is(self) -> Self:
        if not isinstance(self.requires, Set):
            raise ValueError(f"`requires` is {self.requires!r}, where a set of facts is due, as in {{'prior'}}")
        if unknown := sorted(map(str, self.requires - set(KNOWLEDGE))):
            raise ValueError(f"it requires '{unknown[0]}', which is no fact: use some of {', '.join(KNOWLEDGE)}")
        return self

    @property
    def budget(self) -> str | None:
        """What the attack may spend at most, in words, such as `300 iterations`; None for closed forms."""
        return None

    def supports(self, observation: Observation) -> str | None:
        """Why this attack can never apply to such an observation, or None when it can."""
        return None

    @abstractmethod
    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        """Recover images from the observation. Everything random comes from `context.generator`."""

    @final
    def __call__(self, observation: Observation, context: Context) -> AttackRun:
        """Check, run and time the attack; the clock covers `reconstruct` alone, device-synchronised (rule E16).

        Raises:
            AttackError: NaN or infinity in the observed update, or a result that is no reconstruction.
        """
        if missing := sorted(self.requires - observation.threat_model.knows):
            return AttackRun("skipped", f"needs to know {', '.join(missing)}: grant it with --knows", None)
        with _twice_differentiable():
            return self._run(observation.to(context.device), context)

    def _run(self, observation: Observation, context: Context) -> AttackRun:
        if reason := _not_this_model(observation) or reason_of(self, self.supports(observation)):
            return AttackRun("skipped", reason, None)
        if reason := non_finite(observation.update):
            raise AttackError(reason)
        warm_up(context.device)
        with PeakMemory(context.device) as memory:
            start = time.perf_counter()
            result = self.reconstruct(observation, context)
            synchronize(context.device)
            runtime = time.perf_counter() - start
        late = context.expired()  # asked before the harness takes time of its own
        found = _checked(result, observation, context.clamp)
        measured = found, runtime, memory.peak_mb, len(result.images)
        if late:
            return AttackRun("timeout", "the wall clock ran out: raise --timeout", *measured)
        clamped = outside(result.images.detach()[:MOST_IMAGES]) if context.clamp else ""
        return AttackRun(found.status, "; ".join(filter(None, (one_line(found.reason), clamped))), *measured)


def _twice_differentiable() -> AbstractContextManager[None]:
    """Let attention in the body be computed by what has second derivatives, which gradient matching needs."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernel: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return kernel


def lacking(observation: Observation, names: Iterable[str]) -> str | None:
    """Why an attack that needs these tensors of the update cannot have them, for `supports`, or None if all are there.

    Args:
        observation: whose update may be of a part of the parameters: frozen ones are in none.
        names: of parameters of the model.
    """
    missing = [name for name in names if name not in observation.update.tensors]
    if not missing:
        return None
    said = f"the update has no '{missing[0]}'"
    if missing[0] not in dict(observation.model.named_parameters(remove_duplicate=False)):
        return f"{said}: the model computes it of other parameters"
    if not observation.model.get_parameter(missing[0]).requires_grad:
        return f"{said}: that parameter is frozen"
    shared = shared_with(observation.model, missing[0])
    return f"{said}: it is '{shared}' too, and has one gradient" if shared else said


def shared_with(model: nn.Module, name: str) -> str | None:
    """Another name of the same parameter, as tied layers have; None where it has one name, or is no parameter."""
    named = dict(model.named_parameters(remove_duplicate=False))
    return next((each for each in named if each != name and named[each] is named.get(name)), None)


def _not_this_model(observation: Observation) -> str | None:
    """Why an update cannot be of this model, or None: its tensors are some of the model's own, in their shapes."""
    model, update = observation.model, observation.update
    parts = [
        ("parameter", update.tensors, model.named_parameters()),
        ("buffer", update.buffers, model.named_buffers()),
    ]
    for what, sent, own in parts:
        shapes = {name: list(tensor.shape) for name, tensor in own}
        for name, tensor in sent.items():
            if list(tensor.shape) != shapes.get(name):
                here = shapes.get(name, f"no such {what}")
                return (
                    f"the update is of another architecture: at '{name}' the model has {here} and the update "
                    f"{list(tensor.shape)}"
                )
    return None


def non_finite(update: Update) -> str | None:
    """Why no attack can use an update that holds NaN or infinity, or None."""
    for name, tensor in {**update.tensors, **update.buffers}.items():
        if tensor.numel() and not bool(torch.stack(tensor.aminmax()).isfinite().all()):  # without a copy of it
            return f"the observed {update.kind} holds NaN or infinity at '{name}': only finite updates can be attacked"
    return None


def _checked(result: Any, observation: Observation, clamp: bool) -> Reconstruction:
    """The first images, detached, in float32 and clamped if so asked, or an error that says what is wrong with them."""
    if not isinstance(result, Reconstruction):
        raise AttackError(f"the attack returned {type(result).__name__} where a Reconstruction is due")
    for name in ("images", "labels", "certified"):
        values = getattr(result, name)
        if not (isinstance(values, Tensor) or (values is None and name != "images")):
            raise AttackError(f"the attack returned {name} as {type(values).__name__} where a tensor is due")
    if not isinstance(result.diagnostics, Mapping):
        raise AttackError(f"the attack returned diagnostics as {type(result.diagnostics).__name__}, not a mapping")
    if result.status not in get_args(Outcome):
        raise AttackError(f"the attack returned the status '{result.status}', not {', '.join(get_args(Outcome))}")
    if not isinstance(result.reason, str):
        raise AttackError(f"the attack returned the reason as {type(result.reason).__name__} where text is due")
    images = result.images.detach()
    if images.ndim != 4 or tuple(images.shape[1:]) != observation.image_shape:
        due = ["N", *observation.image_shape]
        raise AttackError(f"the attack returned images of shape {list(images.shape)}, not {due}")
    if not images.is_floating_point():
        raise AttackError(f"the attack returned images of {images.dtype} where floats in [0, 1] are due")
    labels, certified = (_beside(images, name, getattr(result, name)) for name in ("labels", "certified"))
    images = images[:MOST_IMAGES]
    if not bool(torch.isfinite(images).all()):
        raise AttackError("the attack returned images that hold NaN or infinity")
    return Reconstruction(
        images.float().clamp(0, 1) if clamp else images.float(),
        labels,
        certified,
        result.diagnostics,
        result.status,
        result.reason,
    )


def outside(images: Tensor) -> str:
    """How much of the images is no pixels, in words, if it is more than noise explains: it may be normalised."""
    beside = (images < -_BESIDE) | (images > 1 + _BESIDE)
    share = float(beside.float().mean()) if images.numel() else 0.0
    if share <= _MOST_BESIDE:
        return ""
    low, high = map(float, images.aminmax())
    return (
        f"{share:.1%} of the returned values, from {low:.3g} to {high:.3g}, were outside [0, 1] and clamped: return "
        "pixels, which observation.denormalize makes of what the model takes"
    )


def _beside(images: Tensor, name: str, values: Tensor | None) -> Tensor | None:
    """The first labels or certificates, one an image, or an error that says what is wrong with them."""
    if values is None:
        return None
    if tuple(values.shape) != (len(images),):
        raise AttackError(f"the attack returned {name} of shape {list(values.shape)} beside {len(images)} images")
    is_bool = values.dtype == torch.bool
    if name == "certified" and not is_bool:
        raise AttackError(f"the attack returned certified of {values.dtype} where booleans are due")
    if name == "labels" and (is_bool or values.is_floating_point() or values.is_complex()):
        raise AttackError(f"the attack returned labels of {values.dtype} where whole numbers are due")
    return values.detach()[:MOST_IMAGES]
