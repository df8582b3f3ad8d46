"""The outcome of an audit: its verdict first, what that rests on, and a documented form in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from gibench.audit.attempts import EXPLAINED, Attempt
from gibench.audit.features import Features
from gibench.audit.pixels import PixelCheck
from gibench.audit.protocol import Protocol
from gibench.jsonable import jsonable

Verdict = Literal["LEAKS", "SUSPECT", "NOT SHOWN", "REFUSED"]

SCHEMA = 1  # of `as_dict`: keys are added within a number, never renamed or dropped
_CODES: dict[Verdict, int] = {"LEAKS": 3, "SUSPECT": 4, "NOT SHOWN": 0, "REFUSED": 2}
NOT_SHOWN = (
    "other attackers, who know more or try longer",
    "servers that change the model to make clients leak",
    "what several rounds tell together",
)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. There is no verdict that says safe.

    `images` are the candidates in pixels, `[N, C, H, W]` in [0, 1]; `certified` says which of them are exact as the
    model takes them, and `pixels` whether that makes them exact pixels.
    """

    verdict: Verdict
    reason: str
    kind: str  # what the update was taken for: gradient, delta or weights
    protocol: Protocol
    assumed: Sequence[str]
    images: Tensor
    certified: Tensor  # [N] booleans, of what the model takes
    certain_pixels: Tensor  # [N] booleans, the certified ones that the 8-bit grid bears out as pixels
    predicted_error: Tensor | None = None  # [N] in pixels of [0, 1], where the attack predicts it
    labels: Tensor | None = None  # [N]
    method: str | None = None
    pixels: PixelCheck | None = None
    residual: float | None = None
    cause: str | None = None  # of what is unexplained
    targets: Tensor | None = None  # [N, classes]
    smoothing: float | None = None
    rank: int | None = None
    sigma: float | None = None
    looks: Mapping[str, Any] = field(default_factory=dict)
    attempts: Sequence[Attempt] = ()
    score: Mapping[str, Any] | None = None  # against the truth, where that was given
    seconds: float = 0.0
    on_grid: Tensor | None = None  # [N] booleans: every pixel lies on the 8-bit grid
    features: Features | None = None  # behind a trunk
    pointers: Sequence[Mapping[str, Any]] = ()  # see `gibench.leaderboard.stopped`

    @property
    def certified_inputs(self) -> int:
        """Images that are certified as the model takes them."""
        return int(self.certified.sum())

    @property
    def certified_pixels(self) -> int:
        """Images whose every pixel is certified, which takes mean, std and shape that the grid bears out."""
        return int(self.certain_pixels.sum())

    def exit_code(self, fail_on: Literal["certified", "suspect"] = "suspect") -> int:
        """0 nothing shown, 3 a certified leak, 4 suspect unless only certified ones count, 2 refused."""
        return 0 if self.verdict == "SUSPECT" and fail_on == "certified" else _CODES[self.verdict]

    def as_dict(self, images: bool = False) -> dict[str, Any]:
        """The report in JSON's types; see docs of the audit for the keys.

        Args:
            images: whether the candidates' pixels go in.
        """
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "reason": self.reason,
            "certified_pixels": self.certified_pixels,
            "certified_inputs": self.certified_inputs,
            "candidates": len(self.images),
            "method": self.method,
            "kind": self.kind,
            "residual": jsonable(self.residual),
            "cause": self.cause,
            "pixel_check": None if self.pixels is None else jsonable(vars(self.pixels)),
            "rank": self.rank,
            "noise": jsonable(self.sigma),
            "label_smoothing": jsonable(self.smoothing),
            "looks": jsonable(self.looks),
            "images": [self._image(index, images) for index in range(len(self.images))],
            "attempts": [each.as_dict() for each in self.attempts],
            "features": _features(self.features),
            "told": jsonable(self.protocol.model_dump(exclude_none=True)),
            "unknown": self.protocol.unknown(),
            "assumed": list(self.assumed),
            "defenses": jsonable(self.pointers),
            "not_shown": list(NOT_SHOWN),
            "score": jsonable(self.score),
            "seconds": self.seconds,
        }

    def _image(self, index: int, pixels: bool) -> dict[str, Any]:
        error = None if self.predicted_error is None else float(self.predicted_error[index])
        made: dict[str, Any] = {
            "certified": bool(self.certified[index]),
            "label": None if self.labels is None else int(self.labels[index]),
            "on_grid": None if self.on_grid is None else bool(self.on_grid[index]),
            "predicted_error": jsonable(error),
            "targets": None if self.targets is None else jsonable(self.targets[index]),
        }
        return made | ({"pixels": jsonable(self.images[index])} if pixels else {})


def refused(reason: str, kind: str, protocol: Protocol, **known: Any) -> AuditReport:
    """The report of an update that nothing is tried on, with the reason."""
    nothing = torch.zeros(0, *protocol.image_shape)
    none = torch.zeros(0, dtype=torch.bool)
    return AuditReport("REFUSED", reason, kind, protocol, (), nothing, none, none, **known)


def _features(features: Features | None) -> dict[str, Any] | None:
    if features is None:
        return None
    kept = ("layer", "size", "rank", "candidates", "certified")
    return {name: getattr(features, name) for name in kept} | {
        "attempts": [each.as_dict() for each in features.attempts]
    }


def verdict_of(
    pixels: int, inputs: int, claimed: int, share: float | None, found: int, on_grid: int, features: Features | None
) -> tuple[Verdict, str]:
    """The verdict and what it says in words.

    Args:
        pixels: certified images whose pixels the grid bears out.
        inputs: certified images that the grid or the residual bears out.
        claimed: images that the attack certifies.
        share: what the candidates leave of the update.
        found: candidates.
        on_grid: candidates whose every pixel lies on the 8-bit grid.
        features: what was found behind a trunk.
    """
    more = f"; {inputs - pixels} more as the model takes them" if inputs > pixels else ""
    unsure = (
        "candidates are certified by the attack, but neither lie on the 8-bit grid nor reproduce the update: are these"
    )
    outcomes: tuple[tuple[bool, Verdict, str], ...] = (
        (pixels > 0, "LEAKS", f"{pixels} images are recovered from the update and certified exact{more}"),
        (
            inputs > 0,
            "LEAKS",
            f"{inputs} network inputs, which the grid does not bear out as pixels, are recovered from the update and "
            "certified exact",
        ),
        (
            found > 0 and share is not None and share < EXPLAINED,
            "SUSPECT",
            f"{found} candidates reproduce the update but for {share or 0:.1e} of it; none is certified",
        ),
        (claimed > 0, "SUSPECT", f"{claimed} {unsure} the weights and the model of the round?"),
        (
            on_grid > 0,
            "SUSPECT",
            f"{on_grid} of {found} candidates lie on the 8-bit grid, as only images do; none is certified",
        ),
        (features is not None and features.explain, "SUSPECT", _of_features(features)),
    )
    nothing = "what was tried recovers nothing that reproduces the update; this does not say that it is safe"
    return next(((verdict, why) for holds, verdict, why in outcomes if holds), ("NOT SHOWN", nothing))


def _of_features(features: Features | None) -> str:
    if features is None:
        return ""
    return (
        f"the features of {features.candidates} images, the {features.size} numbers that enter layer "
        f"'{features.layer}', reproduce the update from there on, and {features.certified} are certified exact; the "
        "images behind them are not recovered"
    )
