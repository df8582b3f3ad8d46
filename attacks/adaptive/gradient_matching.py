"""Gradient matching by an attacker that knows the defense: candidates go through the client's protocol as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from gibench import device
from gibench.observation import Observation

from ..optimization import attack, matching
from ..optimization.attack import OptimizationAttack
from ..optimization.dlg import DLG
from ..optimization.invertinggradients import InvertingGradients
from ..optimization.matching import Matching
from ..optimization.protocol import Protocol, ProtocolMatching, Simulate

_COPIES = 3  # of the weights that a simulated step keeps; 2.5 to 4 were measured on mlp and convnet


class AdaptiveAttack(OptimizationAttack):
    """Puts candidates through what it knows the client did, without what was drawn at random, before it compares.

    | defense | what is compared |
    |---|---|
    | `pruning` | the entries that were kept: those that are not zero |
    | `clip` | the candidates' update, clipped to the same norm (nothing new for a cosine) |
    | `dp` | the mean of the candidates' clipped gradients; `on=update`: of their clients' clipped updates |
    | `fedavg` | the weights after local training on the candidates, as far as `simulate` says |
    | any other, `noise`, `quantize` | as by the attack that is not adaptive |

    All in the order in which the client did it. Candidates go to clients and into local batches in the order of their
    labels as granted or inferred, the same in every epoch: the true order is drawn by the client.
    """

    requires: ClassVar[frozenset[str]] = OptimizationAttack.requires | {"local_hyperparameters"}
    adaptive: ClassVar[bool] = True

    simulate: Simulate = Field(
        "steps",
        description="local steps of candidates: all as prescribed, one an epoch (epochs), or none, the delta read as a "
        "gradient; fewer steps are as much longer",
    )

    def supports(self, observation: Observation) -> str | None:
        if reason := super().supports(observation):
            return reason
        protocol = self._protocol(observation)
        return protocol if isinstance(protocol, str) else self._too_large(protocol, observation)

    def _too_large(self, protocol: Protocol, observation: Observation) -> str | None:
        """Why there is no memory for the local steps, all of which stay until they are differentiated, or None."""
        if protocol.plain:
            return None
        sent = observation.update.tensors  # of the frozen ones no step makes another copy
        weights = [observation.model.get_parameter(name) for name in sent]
        steps = self.restarts * protocol.steps
        needed = _COPIES * steps * sum(weight.numel() * weight.element_size() for weight in weights) / 2**20
        there = device.memory_mb(weights[0].device)
        if needed <= there:
            return None
        return (
            f"simulating {steps} local steps takes about {needed / 1024:.0f} GiB of memory and the device has "
            f"{there / 1024:.0f}: use simulate=epochs or none"
        )

    def _protocol(self, observation: Observation) -> Protocol | str:
        return Protocol.read(observation, self.simulate, scaled=self.objective in ("l1", "l2"))

    def _matching(self, observation: Observation, gradient: Mapping[str, Tensor], watched: list[str]) -> Matching:
        protocol = self._protocol(observation)
        assert isinstance(protocol, Protocol)  # else it is unsupported
        if protocol.plain:
            return matching.make(observation.model, gradient, self.objective, watched)
        return ProtocolMatching(protocol, observation.model, gradient, self.objective, watched)


class AdaptiveDLG(DLG, AdaptiveAttack):
    """`dlg` by an attacker that knows the client's protocol: every setting of defenses and training.

    It does not know what was drawn: noise, the order of local batches, a random mask but for its zeros. What it makes
    of what it knows is said in `AdaptiveAttack`. Labels are not sought along with the images but counted, see
    `optimization/class_counts.py`: the objective is too often met with wrong ones.
    """

    label_strategy: attack.LabelStrategy = "counts"


class AdaptiveInvertingGradients(InvertingGradients, AdaptiveAttack):
    """`invertinggradients` by an attacker that knows the client's protocol: every setting of defenses and training.

    It does not know what was drawn: noise, the order of local batches, a random mask but for its zeros. What it makes
    of what it knows is said in `AdaptiveAttack`.
    """
