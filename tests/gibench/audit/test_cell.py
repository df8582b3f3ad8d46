"""The update of a cell of the benchmark, written in every format, gives what the cell's own attack gives."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import gibench
from gibench import stages
from gibench.sweep.suite import Suite
from tests.gibench.audit.test_federated import Looks

SUITE = {"attack": "layer-pair", "model": "mlp:width=100,depth=2", "batch_size": 4, "device": "cpu", "threads": 1}


def silent(message, fraction=None):
    pass


@pytest.fixture(scope="module")
def cell():
    """What its server observes, and what its attack made of it."""
    (cell,) = Suite.from_settings("suite", SUITE).cells()
    observation = stages.Preparation(cell, stages.facts_of(cell.attack), silent).observe()
    return observation, stages.attack(stages.Task.of(cell), observation, silent).reconstruction


def written(gradient, folder):
    """The gradient in each format, and as each kind of object."""
    arrays = {name: each.numpy() for name, each in gradient.items()}
    torch.save(gradient, folder / "named.pt")
    torch.save(list(gradient.values()), folder / "list.pth")
    save_file(gradient, folder / "named.safetensors")
    np.savez(folder / "named.npz", **arrays)
    np.savez_compressed(folder / "zipped.npz", **arrays)
    np.savez(folder / "list.npz", *arrays.values())
    flower = [Looks().record(arrays), Looks().record(list(arrays.values())), Looks().result(arrays.values())]
    return [*folder.iterdir(), gradient, arrays, list(arrays.values()), *flower]


@pytest.mark.slow
def test_every_format_gives_bit_equal_reconstructions_and_the_cell_s_images(cell, tmp_path):
    observation, own = cell
    gradient = {name: each.contiguous() for name, each in observation.gradient().items()}
    reports = [
        gibench.audit(
            observation.model,
            update,
            observation.image_shape,
            observation.mean.tolist(),
            observation.std.tolist(),
            kind="gradient",
            training={"batch_size": observation.batch_size},
            attacks=["layer-pair"],
            device="cpu",
        )
        for update in written(gradient, tmp_path)
    ]
    assert len(reports) == 12
    for report in reports:
        assert report.certified_pixels == 4
        assert torch.equal(report.images, reports[0].images)
        assert torch.equal(report.predicted_error, reports[0].predicted_error)
    found, same = ((255 * images).round().flatten(1) for images in (reports[0].images, own.images))
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, same.tolist()))
