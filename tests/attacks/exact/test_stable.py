"""Points and patterns in turn, on a problem whose steps can be counted: the pattern of a number is its bits above."""

import pytest
import torch

from gibench.attacks.exact.stable import until_stable

LEVELS = torch.arange(8.0)[:, None]


def read(points):
    return points > LEVELS  # so many ones as the number says


def halve(patterns, points):
    return (patterns.sum(dim=0, keepdim=True) / 2).floor()


def settled(start, passes, **options):
    points = torch.tensor([start])
    return until_stable(halve, read, points, read(points), passes, **options)


def test_each_point_goes_on_until_its_own_pattern_stays():
    points, patterns, unstable = settled([8.0, 3.0, 0.0], 10)
    assert points.tolist() == [[0.0, 0.0, 0.0]]
    assert not patterns.any()
    assert len(unstable) == 0


def test_what_may_still_change_is_told():
    points, patterns, unstable = settled([8.0, 2.0, 0.0], 2)
    assert points.tolist() == [[2.0, 0.0, 0.0]]
    assert torch.equal(patterns, read(points))
    assert unstable.tolist() == [0, 1]


def test_a_pattern_of_too_few_is_left_as_it_is():
    points, _, unstable = settled([8.0, 3.0], 10, least=2)
    assert points.tolist() == [[1.0, 1.0]]
    assert len(unstable) == 0


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_deadline_keeps_what_is_there_by_then(passes):
    asked = iter([False] * passes + [True] * 9)
    points, _, unstable = settled([8.0], 10, expired=lambda: next(asked))
    assert points.tolist() == [[8.0 / 2**passes]]
    assert unstable.tolist() == [0]


def test_what_was_given_stays_as_it_was():
    points = torch.tensor([[8.0]])
    patterns = read(points)
    until_stable(halve, read, points, patterns, 3)
    assert points.tolist() == [[8.0]]
    assert patterns.all()
