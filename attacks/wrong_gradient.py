"""The negative control that runs an attack on the update of another batch (rule E15)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import ClassVar, cast

from pydantic import Field, field_validator

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation
from gibench.registry import create, resolve


class WrongGradient(Attack):
    """The attack named, on the update of a batch that is not the client's: what it scores, it scores without having
    seen anything of the truth.

    The harness draws as many real images from the public split, by the same rule of labels, and puts them through the
    same client and the same defenses, with noise of the same seed. All that the observation says of a batch (update,
    granted labels, BatchNorm statistics) is of those. So the attack runs as it is, with its own requirements and
    budget; one that scores no better on the true update has found nothing.
    """

    control: ClassVar[bool] = True
    foreign: ClassVar[bool] = True

    attack: str = Field("invertinggradients", description="the attack to run, with its settings in single quotes")

    @field_validator("attack")
    @classmethod
    def _resolved(cls, text: str) -> str:
        return str(resolve("attack", text))

    @cached_property
    def _inner(self) -> Attack:
        return cast(Attack, create("attack", self.attack))

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]  # of the attack it runs, as all that follows
        return self._inner.requires

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return self._inner.adaptive

    @property
    def oracle(self) -> bool:  # type: ignore[override]
        return self._inner.oracle

    @property
    def budget(self) -> str | None:
        return self._inner.budget

    def supports(self, observation: Observation) -> str | None:
        if not observation.foreign:
            return "the observation is of the truth itself, not of another batch: let the harness run this control"
        return self._inner.supports(observation)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        # What it certifies, it certifies of the other batch: that is no claim about the truth.
        return replace(self._inner.reconstruct(observation, context), certified=None)
