"""How the private batches are drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from gibench.batches import draw
from gibench.datasets.base import Images, Split
from gibench.errors import UsageError
from gibench.registry import create


def made_of(labels):
    """A data set whose private image number i has all pixels equal to i."""
    numbers = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1)
    private = Split(numbers, torch.tensor(labels))
    elsewhere = Split(torch.full((1, 1, 1, 1), -1.0), torch.tensor([0]))
    return Images(private, elsewhere, elsewhere, elsewhere, tuple("abcdefgh"), torch.zeros(1), torch.ones(1))


def numbers_of(truth):
    return truth.images.flatten().long().tolist()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


private_labels = st.lists(st.integers(0, 7), min_size=1, max_size=40)
rules = st.sampled_from(["iid", "unique", "same"])


@given(private_labels, st.integers(1, 12), rules, st.integers(0, 2**32))
def test_a_batch_follows_its_rule_and_is_refused_only_where_there_is_none(labels, batch_size, rule, seed):
    images = made_of(labels)
    counts = [labels.count(label) for label in set(labels)]
    if batch_size > min(len(labels), {"iid": len(labels), "unique": len(counts), "same": max(counts)}[rule]):
        with pytest.raises(UsageError, match=r"ask for (fewer|a smaller batch)$"):
            draw(images, batch_size, rule, 1, generator(seed))
        return
    truth = draw(images, batch_size, rule, 1, generator(seed))
    numbers = numbers_of(truth)
    assert len(numbers) == len(set(numbers)) == batch_size
    assert truth.labels.tolist() == [labels[number] for number in numbers]
    assert rule == "iid" or len(truth.labels.unique()) == (batch_size if rule == "unique" else 1)


@given(st.integers(1, 4), rules, st.integers(0, 2**32))
def test_several_clients_have_batches_without_a_common_image_each_by_the_rule(clients, rule, seed):
    truth = draw(made_of(list(range(8)) * 20), 5, rule, clients, generator(seed))
    assert len(set(numbers_of(truth))) == 5 * clients
    for batch in truth.labels.split(5):
        assert rule == "iid" or len(batch.unique()) == (5 if rule == "unique" else 1)


@pytest.mark.parametrize("rule", ["iid", "unique", "same"])
def test_a_seed_draws_the_same_batch_again_and_another_seed_another(rule):
    images = made_of(list(range(8)) * 20)
    one, same, other = (numbers_of(draw(images, 5, rule, 2, generator(seed))) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("rule", ["iid", "unique", "same"])
def test_every_image_is_drawn_equally_often_where_classes_are_equal(rule):
    images, source = made_of([0, 1, 2, 3] * 5), generator()
    counts = torch.zeros(20)
    for _ in range(2000):
        counts[numbers_of(draw(images, 3, rule, 1, source))] += 1
    assert chisquare(counts).pvalue > 0.001


def test_unique_labels_are_equally_often_drawn_however_rare_they_are():
    images, source = made_of([0] * 17 + [1, 2, 3]), generator()
    counts = torch.zeros(4)
    for _ in range(1000):
        counts += draw(images, 2, "unique", 1, source).labels.bincount(minlength=4)
    assert chisquare(counts).pvalue > 0.001


def test_one_label_is_uniform_among_those_with_enough_images():
    images, source = made_of([0] * 12 + [1] * 4 + [2] * 3), generator()
    counts = torch.zeros(3)
    for _ in range(1000):
        counts[draw(images, 4, "same", 1, source).labels[0]] += 1
    assert counts[2] == 0
    assert chisquare(counts[:2]).pvalue > 0.001


def test_a_batch_of_one_image_is_a_batch():
    assert len(draw(made_of([3]), 1, "same", 1, generator())) == 1


@pytest.mark.parametrize(
    ("batch_size", "rule", "clients", "complaint"),
    [
        (521, "iid", 1, "a batch of 521 is more than the 520 images of the private split: ask for fewer"),
        (200, "iid", 4, "4 batches of 200 is more than the 520 images of the private split: ask for fewer"),
        (6, "unique", 1, "labels=unique has 5 labels to offer in the private split, not 6: ask for a smaller batch"),
        (105, "same", 1, r"labels=same finds no label with 105 images left in the private split \(the most is 104\)"),
        (0, "iid", 1, "a batch of 0 images is refused: ask for at least 1"),
        (5, "sorted", 1, "unknown label rule 'sorted': use iid, unique or same"),
    ],
)
def test_what_the_photos_cannot_give_is_refused_with_what_they_can(batch_size, rule, clients, complaint):
    with pytest.raises(UsageError, match=complaint):
        draw(create("dataset", "photos").load(), batch_size, rule, clients, generator())
