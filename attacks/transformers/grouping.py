"""Which patches are of one image."""

from __future__ import annotations

from collections.abc import Sequence


def grouped(positions: Sequence[int], affinity: Sequence[Sequence[float]], count: int) -> list[list[int]]:
    """Tokens in images, the most complete first, by joining those of most affinity first.

    No two tokens of an image have the same position, so joining ends where every two images left do, or where none of
    their tokens attends to one of the other.

    Args:
        positions: of each token in its image.
        affinity: with how much weight the token of a row attends to that of a column.
        count: of positions.
    """
    images = {token: [token] for token in range(len(positions))}
    home = list(range(len(positions)))
    pairs = [
        (max(affinity[one][other], affinity[other][one]), one, other)
        for one in range(len(positions))
        for other in range(one)
    ]
    for weight, one, other in sorted(pairs, reverse=True):
        first, second = images[home[one]], images[home[other]]
        taken = {positions[token] for token in first} & {positions[token] for token in second}
        if weight <= 0 or first is second or taken or len(first) + len(second) > count:
            continue
        del images[home[other]]
        for token in second:
            home[token] = home[one]
        first.extend(second)
    return sorted(images.values(), key=len, reverse=True)
