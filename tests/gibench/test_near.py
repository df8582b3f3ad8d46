"""Near-duplicates: found as by comparing all pairs, at the stated distance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from gibench.datasets import near
from gibench.datasets.near import NEAR_MSE, clusters, near_any


def differences(first, second):
    """Mean squared difference of each pair, `[N, M]`."""
    return ((first.astype(float)[:, None] - second) ** 2).mean(axis=(2, 3, 4))


@st.composite
def image_sets(draw):
    """Two sets of images of any shape whose distances lie on both sides of the limit."""
    height, width, channels = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 3]))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    scenes = generator.integers(0, 256, (3, height, width, channels))
    noise = draw(st.integers(1, 40))
    return [
        np.clip(scenes[generator.integers(0, 3, count)] + generator.integers(-noise, noise + 1, (count, 1, 1, 1))
                + generator.integers(-noise, noise + 1, (count, height, width, channels)), 0, 255).astype(np.uint8)
        for count in (draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that few images are many chunks."""
    monkeypatch.setattr(near, "CHUNK", 7)
    monkeypatch.setattr(near, "PAIRS", 5)


@given(image_sets())
def test_clusters_are_the_connected_components_of_all_pairs(sets):
    pixels = np.concatenate(sets)
    _, expected = connected_components(differences(pixels, pixels) <= NEAR_MSE, directed=False)
    firsts = [int(np.flatnonzero(expected == label)[0]) for label in expected]
    assert clusters(pixels).tolist() == firsts


@given(image_sets())
def test_an_image_near_any_of_the_others_is_found(sets):
    pixels, others = sets
    assert near_any(pixels, others).tolist() == (differences(pixels, others) <= NEAR_MSE).any(axis=1).tolist()


def test_25_db_is_where_near_begins():
    black = np.zeros((1, 10, 10, 1), dtype=np.uint8)
    other = black.copy()
    other.flat[:] = 14  # mse 196, 25.2 dB
    assert near_any(black, other).all()
    other.flat[:20] = 16  # mse 208, 24.95 dB
    assert not near_any(black, other).any()
