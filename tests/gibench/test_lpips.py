"""LPIPS is the published one, works offline, and a wrong one is noticed."""

import os
import subprocess
import sys

import pytest
import torch
from skimage import data
from torch.nn.functional import interpolate

from gibench.errors import GibenchError
from gibench.scoring import lpips as module
from gibench.scoring.lpips import lpips


def crop(name, side):
    return torch.from_numpy(getattr(data, name)()[:side, :side]).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("other", "side", "reference"), [("coffee", 64, 0.72149), ("chelsea", 64, 0.61412), ("coffee", 32, 0.31116)]
)
def test_reference_values(other, side, reference):
    assert lpips(crop("astronaut", side), crop(other, side)).item() == pytest.approx(reference, abs=1e-5)


def test_an_image_is_at_no_distance_from_itself():
    assert lpips(crop("astronaut", 64), crop("astronaut", 64)).item() == 0


def test_small_images_are_resized_bilinearly_and_grey_is_repeated():
    first, second = (torch.rand(3, 1, 8, 12, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    large = [
        interpolate(images, (32, 32), mode="bilinear", align_corners=False).repeat(1, 3, 1, 1)
        for images in (first, second)
    ]
    assert torch.equal(lpips(first, second), lpips(*large))


def test_pairs_are_measured_one_by_one_whatever_the_batch():
    first, second = (torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    together = lpips(first, second)
    assert together.shape == (70,)
    assert torch.allclose(together[[0, 69]], torch.cat([lpips(first[[i]], second[[i]]) for i in (0, 69)]), atol=1e-6)
    assert lpips(first[:0], second[:0]).shape == (0,)


@pytest.mark.parametrize(("count", "side", "most"), [(70, 32, 64), (65, 128, 64), (18, 256, 16), (3, 1100, 1)])
def test_large_images_are_measured_a_few_at_once(count, side, most):
    counts = []

    def network(first, second):
        counts.append(len(first))
        return first[:, :1, :1, :1]

    images = torch.zeros(1, 1, 1, 1).expand(count, 1, side, side)
    assert module._measure(network, images, images).shape == (count,)
    assert max(counts) == most
    assert sum(counts) == count


def test_damaged_weights_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(GibenchError, match="are damaged: reinstall gibench"):
        module.self_test()


def test_wrong_layers_fail_the_self_test():
    network = module._network()
    network.get_submodule("lin0").get_parameter("model.1.weight").mul_(2)
    with pytest.raises(GibenchError, match=r"self-test fails: astronaut, coffee 64 px gives .*, not 0.72149"):
        module._self_test(network)


def test_building_the_network_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    module._network()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_offline_and_silent_in_a_fresh_process(tmp_path):
    """No connection is tried, no file is fetched, nothing is printed, no warning is given."""
    program = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "from gibench.scoring.lpips import self_test\n"
        "errors = self_test()\n"
        "assert max(map(abs, errors.values())) < 1e-4, errors\n"
    )
    environment = os.environ | {"TORCH_HOME": str(tmp_path / "torch"), "PYTHONWARNINGS": "default::UserWarning"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "torch").exists()
