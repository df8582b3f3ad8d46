"""An attack that reports what no store can hold as it is: in its diagnostics, its reason or its error."""

import itertools
from collections.abc import Mapping

import torch
from pydantic import Field

from gibench.attack import Attack, Reconstruction


class NoText:
    """Cannot be shown."""

    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class Exits(NoText):
    """Ends the program when it is shown."""

    def __str__(self):
        raise SystemExit(0)


class Mute(Exception):
    """An error that cannot be shown."""

    __str__ = NoText.__str__


class Endless(Mapping):
    """Has keys without end."""

    def __getitem__(self, key):
        return key

    def __iter__(self):
        return itertools.count()

    def __len__(self):
        return 1


class Broken(Endless):
    """Cannot be read."""

    def __iter__(self):
        raise OSError("gone")


class EndlessList(list):
    """A list without end."""

    def __iter__(self):
        return itertools.count()


class Float(float):
    """A number that cannot be had."""

    def __float__(self):
        raise ArithmeticError("never")


class Liar:
    """Says that it is a mapping, and of itself more than anybody reads."""

    __class__ = property(lambda self: dict)

    def __repr__(self):
        return "words " * 10**6


class Numb:
    """Has no text for a text."""

    def __repr__(self):
        return 7


def deep(levels, found=None):
    for number in range(levels):
        found = {"inside": found} if number % 2 else [found]
    return found


def circular():
    found = {"number": 1.5}
    found["again"] = [found, found]
    return found


class Evil(dict):
    """A dictionary whose every item raises."""

    def __getitem__(self, key):
        raise KeyError(key)


VALUES = {
    "circular": circular,
    "deep": lambda: deep(5000),
    "large": lambda: [10**400, -(10**5000), 2**70, 1.7e308],
    "nan": lambda: {"loss": float("nan"), "norms": [float("inf"), torch.tensor([-float("inf")])]},
    "liar": Liar,
    "numb": Numb,
    "endless": Endless,
    "endless-list": lambda: EndlessList([1]),
    "broken": Broken,
    "evil": lambda: Evil(a=1),
    "no-text": NoText,
    "exits": Exits,
    "no-text-key": lambda: {NoText(): 1},
    "surrogate": lambda: {"\udcff": "\ud800", "nul": "a\0b"},
    "keys": lambda: {str(number): float(number) for number in range(100_000)},
    "wide": lambda: [[[0.5] * 100 for _ in range(100)] for _ in range(100)],
    "text": lambda: ["x" * 10**5] * 100,
    "float": lambda: Float(1),
    "tensor": lambda: torch.zeros(10**7),
    "meta": lambda: torch.zeros(3, device="meta"),
    "escapes": lambda: "\x1b[2J\a\u202e<script>[a](b)\n",
}


class Reports(Attack):
    """Reports a value of the kind `what` in the place `where`."""

    what: str = Field("circular", description="a key of VALUES")
    where: str = Field("inside", description="inside, diagnostics, reason, supports or error")

    def supports(self, observation):
        return VALUES[self.what]() if self.where == "supports" else None

    def reconstruct(self, observation, context):
        value = VALUES[self.what]()
        if self.where == "error":
            raise Mute if self.what == "no-text" else ValueError(value)
        images = torch.full((1, *observation.image_shape), 0.5)
        if self.where == "reason":
            return Reconstruction(images, status="diverged", reason=value)
        diagnostics = value if self.where == "diagnostics" else {"before": 1.0, "value": value}
        return Reconstruction(images, diagnostics=diagnostics)
