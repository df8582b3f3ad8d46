"""How a training run draws its batches: the sizes, the probabilities and the independence that accountants assume."""

import itertools

import pytest
import torch
from scipy.stats import binomtest, chisquare

from gibench.defense import DefenseContext, Sampler
from gibench.utility.draw import draws


def rounds(scheme, unit="images", clients=2, size=3, count=30, number=2000):
    context = DefenseContext(torch.Generator(), size, count, clients=clients, sampler=Sampler(scheme, unit))
    return list(itertools.islice(draws(context, torch.Generator().manual_seed(0)), number))


def test_fixed_batches_are_distinct_images_of_the_whole_split():
    found = rounds("fixed")
    assert all([len(batch) for batch in each] == [3, 3] for each in found)
    assert all(len(set(torch.cat(each).tolist())) == 6 for each in found)
    assert chisquare(torch.cat([torch.cat(each) for each in found]).bincount(minlength=30)).pvalue > 0.01


def test_in_poisson_samples_every_image_falls_to_a_client_by_itself():
    found = rounds("poisson")
    assert all(len(set(torch.cat(each).tolist())) == sum(map(len, each)) for each in found)  # to one at most
    for client in (0, 1):
        drawn = torch.stack([torch.zeros(30).index_fill(0, each[client], 1) for each in found])
        assert chisquare(drawn.sum(0)).pvalue > 0.01
        assert binomtest(int(drawn.sum()), drawn.numel(), 3 / 30).pvalue > 0.01
        sizes = drawn.sum(1)
        assert sizes.var() == pytest.approx(30 * 0.1 * 0.9, rel=0.1)  # binomial; 0 for batches of a fixed size
        assert sizes.min() == 0
        assert sizes.max() > 6
        assert torch.corrcoef(drawn.T)[0, 1].abs() < 0.1


@pytest.mark.parametrize("scheme", ["fixed", "poisson"])
def test_clients_keep_their_images(scheme):
    found = rounds(scheme, "clients", clients=2, size=4)
    homes = {tuple(sorted(batch.tolist())) for each in found for batch in each}
    assert len(homes) == 7  # of 30 images, two belong to nobody
    assert len({image for home in homes for image in home}) == 28
    present = torch.tensor([len(each) for each in found]).double()
    if scheme == "fixed":
        assert set(present.tolist()) == {2}
        assert all(len({tuple(batch.tolist()) for batch in each}) == 2 for each in found)
    else:
        assert binomtest(int(present.sum()), 7 * len(found), 2 / 7).pvalue > 0.01
        assert present.var() == pytest.approx(7 * 2 / 7 * 5 / 7, rel=0.1)
        assert present.min() == 0


@pytest.mark.parametrize("scheme", ["fixed", "poisson"])
@pytest.mark.parametrize("unit", ["images", "clients"])
def test_the_same_seed_draws_the_same(scheme, unit):
    one, other = (rounds(scheme, unit, number=5) for _ in range(2))
    assert [[batch.tolist() for batch in each] for each in one] == [
        [batch.tolist() for batch in each] for each in other
    ]
    assert [batch.tolist() for batch in one[0]] != [batch.tolist() for batch in one[1]]
