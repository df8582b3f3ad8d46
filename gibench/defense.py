"""The contract of a defense: optional hooks that change what leaves the client, and what it guarantees.

A chain of defenses has one meaning: first how a step's gradient is computed (DP-SGD), then how steps become an
update (FedAvg), how the clients' updates become one (client-level DP), last what is released (pruning). Within a hook
the order is as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gibench.observation import LocalTraining, Update
from gibench.plugin import Plugin
from gibench.result import Promise

Parameters = dict[str, Tensor]
# (parameters, model inputs [N, C, H, W], labels [N]) -> gradient of the mean loss, one tensor a parameter
Gradient = Callable[[Parameters, Tensor, Tensor], Parameters]
# (parameters, a batch of each client) -> the update of these clients
Updating = Callable[[Parameters, "Sequence[Batch]"], tuple[Update, LocalTraining | None]]
Hook = Literal["step", "update", "average", "release"]
# A norm or a noise level: beyond these, single precision makes nothing or infinity of it or of a product of two.
Magnitude = Annotated[float, Field(ge=1e-15, le=1e15)]
HOOKS: tuple[Hook, ...] = ("step", "update", "average", "release")  # the canonical order
Sampling = Literal["poisson", "fixed"]


@dataclass(frozen=True)
class Sampler:
    """How a training run draws each round's batches, see `gibench.utility.draw`."""

    scheme: Sampling = "fixed"  # poisson: each is drawn or not by itself; fixed: so many, without replacement
    unit: Literal["images", "clients"] = "images"  # drawn: images, for new clients; or clients, who keep theirs


@dataclass(frozen=True)
class Batch:
    """One client's private batch, or the local batch of a step, as the model takes it.

    How many examples it has may be private, and none is possible; how many it should have is public.
    """

    inputs: Tensor  # [N, C, H, W], normalised
    labels: Tensor  # [N]
    size: int | None = None  # the public number; none: the context's batch_size


@dataclass(frozen=True)
class DefenseContext:
    """What the harness lends a defense: its noise, and the facts its guarantee depends on. All of them are public."""

    generator: torch.Generator  # on the batch's device
    batch_size: int  # per client; of Poisson samples, the expected one
    dataset_size: int  # of the split the batch was drawn from
    memory_mb: float = 1024.0  # a budget for what a defense computes in chunks
    clients: int = 1  # whose batches go into the update; of Poisson samples, the expected number
    passes: int = 1  # steps of the update that each private example enters, see `Defense.passes`
    rounds: int | None = None  # of the training run that the update is part of; none: it is alone
    sampler: Sampler = Sampler()  # how its batches are drawn
    model: nn.Module | None = None  # a copy of the client's network, for `torch.func.functional_call`; in hooks alone

    @property
    def slots(self) -> int:
        """How many examples a client's batch has room for; those that are missing leave their slots empty."""
        poisson = self.sampler == Sampler("poisson", "images")
        return self.dataset_size if poisson else self.batch_size


@dataclass(frozen=True)
class Guarantee(Promise):
    """What a defense promises or costs; None where it promises nothing. `costs` is logged as it is."""

    costs: Mapping[str, Any] = field(default_factory=dict)

    def columns(self) -> dict[str, Any]:
        """What is promised, as rows hold it."""
        return {each.name: getattr(self, each.name) for each in fields(Promise)}


class Defense(Plugin):
    """Base of all defenses. Override the hooks that apply; the fields are the settings."""

    hooks: ClassVar[frozenset[Hook]] = frozenset()  # those that are overridden; nobody need say so
    references: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "hooks" not in vars(cls):
            cls.hooks = cls._overridden()

    @classmethod
    def _overridden(cls) -> frozenset[Hook]:
        return frozenset(hook for hook in HOOKS if getattr(cls, hook) is not getattr(Defense, hook))

    @classmethod
    def fault(cls) -> str | None:
        if not cls._overridden():
            return f"overrides none of {', '.join(HOOKS)}, so it would defend nothing"
        if cls.hooks != cls._overridden():
            named, found = (", ".join(sorted(each)) for each in (cls.hooks, cls._overridden()))
            return f"names the hooks {named}, but overrides {found}: leave `hooks` out"
        return super().fault()

    @property
    def client_count(self) -> int:
        """How many clients' batches go into the update; the truth is their union."""
        return 1

    @property
    def passes(self) -> int:
        """How many steps of the update each private example enters, at most: what is lost in each adds up."""
        return 1

    @property
    def sampler(self) -> Sampler:
        """How a training run must draw its batches for what is promised of it."""
        return Sampler()

    @property
    def keeps_buffers(self) -> bool:
        """Whether what training leaves in the network's buffers, such as BatchNorm's, stays with the clients.

        Else it is sent as it is, where the threat model has clients send it.
        """
        return False

    def check(self, context: DefenseContext) -> None:
        """Refuse settings that make no sense for such batches and data, before anything runs.

        Raises:
            UsageError: what is wrong and how to mend it.
        """

    def supports(self, model: nn.Module, context: DefenseContext) -> str | None:
        """Why this defense cannot be applied to such a model, or None when it can."""
        return None

    def step(self, gradient: Gradient, parameters: Parameters, batch: Batch, context: DefenseContext) -> Parameters:
        """The gradient of one step; `gradient` is pure, so torch.func can vmap it for per-example gradients."""
        return gradient(parameters, batch.inputs, batch.labels)

    def update(
        self,
        step: Callable[[Parameters, Batch], Parameters],
        parameters: Parameters,
        batches: Sequence[Batch],
        context: DefenseContext,
    ) -> tuple[Update, LocalTraining | None]:
        """The update of all clients' batches, made of steps; the default is one gradient of the only batch.

        A client's first step is at `parameters` themselves, by which its buffers are told from the last client's.
        Where clients are sampled there may be none, whose update is zero.
        """
        if not batches:
            return Update({name: torch.zeros_like(value) for name, value in parameters.items()}), None
        return Update(step(parameters, batches[0])), None

    def average(
        self, update: Updating, parameters: Parameters, batches: Sequence[Batch], context: DefenseContext
    ) -> tuple[Update, LocalTraining | None]:
        """How the clients' updates become one; `update` makes that of any of them, by default of all at once."""
        return update(parameters, batches)

    def release(self, update: Update, context: DefenseContext) -> Update:
        """What is sent of the update."""
        return update

    def guarantee(self, context: DefenseContext) -> Guarantee:
        """What this defense promises about what `context` describes."""
        return Guarantee()
