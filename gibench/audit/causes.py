"""The likely cause of what recovered images leave unexplained of an update."""

from __future__ import annotations

import torch

from gibench.audit.attempts import EXPLAINED
from gibench.audit.looks import Looks
from gibench.audit.protocol import Protocol

_HONEST = 1e-4  # what rounding of single precision leaves at most
_STRANGE = 0.5


def cause_of(share: float | None, looks: Looks, protocol: Protocol, gradient: bool, draws: bool) -> str | None:
    """In words, or None where nothing is left to explain.

    Args:
        share: the residual of the best candidates; None where there are none.
        looks: of the update as it was sent.
        protocol: what was told.
        gradient: what the update was taken for; else a delta.
        draws: whether the model drops out at random, as nobody can do again.
    """
    if looks.decay is not None:
        return decay_in_words(looks.decay, protocol)
    if share is None or share < _HONEST:
        return None
    if draws:
        return "the client's model dropped out at random, so not even the true images would explain the update"
    if protocol.steps > 1:
        return f"{protocol.steps} local steps are told: their sum is only about one gradient"
    eps = torch.finfo(getattr(torch, looks.dtype)).eps
    steps = "" if gradient or protocol.local_steps else "several local steps, "
    least = (
        (
            _STRANGE,
            "are these the weights the client received, and is this its model, in its mode? Else noise hides it",
        ),
        (EXPLAINED, f"{steps}noise, dropout, or images that are not found"),
        (eps, "rounding to half precision, weak noise, or a term of the loss beside cross-entropy"),
        (0, f"the update is rounded to {looks.dtype}, by up to {eps / 2:.1e}"),
    )
    return next(words for share_of_it, words in least if share >= share_of_it)


def decay_in_words(found: float, protocol: Protocol) -> str:
    """What is added of the weights, as the weight decay it is of where the learning rate is told."""
    rate = protocol.total_lr
    told = f"weight_decay {abs(found) / rate:.4g}" if rate and found < 0 else "the client's weight_decay and lr"
    return f"the update holds {found:.4g} times the weights, as weight decay leaves it: tell {told}"
