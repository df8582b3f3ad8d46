"""torchvision's data sets: downloaded once, whole or not at all, and a clear line where they cannot be."""

import gzip
import hashlib
import socket
import struct
import threading
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision import datasets

from gibench.datasets import torchvision
from gibench.errors import UsageError
from gibench.registry import create

NAMES = ("cifar10", "cifar100", "mnist", "fashion-mnist")
TRAIN, TEST = 30, 50


def load(name, root):
    return create("dataset", f"{name}:root='{root}'").load()


def route_through(monkeypatch, port):
    """Send what this process downloads to a port of this machine."""
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, f"http://127.0.0.1:{port}")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first call


@pytest.fixture
def no_network(monkeypatch):
    """Nothing listens where the downloads are sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    route_through(monkeypatch, port)


@pytest.fixture
def silent_network(monkeypatch):
    """Whoever is asked takes the call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        route_through(monkeypatch, server.getsockname()[1])
        yield


class Files(SimpleHTTPRequestHandler):
    """A file server that keeps to itself."""

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def digits_site(tmp_path, monkeypatch):
    """MNIST's files, small and made up, on a server of this machine from which torchvision now takes them."""
    site = tmp_path / "site"
    site.mkdir()
    generator = np.random.default_rng(0)
    resources = []
    for kind, count in (("train", TRAIN), ("t10k", TEST)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8).tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        for name, header, content in (
            (f"{kind}-images-idx3-ubyte.gz", struct.pack(">HBB3I", 0, 8, 3, count, 28, 28), images),
            (f"{kind}-labels-idx1-ubyte.gz", struct.pack(">HBBI", 0, 8, 1, count), labels),
        ):
            packed = gzip.compress(header + content)
            (site / name).write_bytes(packed)
            resources.append((name, hashlib.md5(packed).hexdigest()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", NAMES)
def test_no_network_is_one_clear_line_within_seconds(name, no_network, tmp_path, capfd):
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"cannot be downloaded .*: connect to the network, or set root= to") as info:
        load(name, tmp_path)
    assert time.monotonic() - start < 10
    assert "\n" not in str(info.value)
    assert capfd.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_a_silent_network_is_given_up(silent_network, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision, "SILENCE_S", 0.2)
    with pytest.raises(UsageError, match=r"cannot be downloaded \(.*timed out"):
        load("cifar10", tmp_path)
    assert socket.getdefaulttimeout() is None


def test_a_download_serves_later_runs_without_a_network(digits_site, tmp_path, capfd):
    first = load("mnist", tmp_path / "root")
    for file in digits_site.iterdir():
        file.unlink()
    second = load("mnist", tmp_path / "root")
    assert torch.equal(first.private.images, second.private.images)
    assert capfd.readouterr().out == ""


def test_training_images_are_public_and_test_images_private(digits_site, tmp_path):
    images = load("mnist", tmp_path)
    assert images.image_shape == (1, 28, 28)
    assert images.num_classes == 10
    assert len(images.public) == TRAIN
    assert len(images.tuning) + len(images.private) == TEST
    test = datasets.MNIST(tmp_path, train=False)
    given = {(image.numpy().tobytes(), int(label)) for image, label in zip(test.data, test.targets, strict=True)}
    found = {
        ((image[0] * 255).round().to(torch.uint8).numpy().tobytes(), int(label))
        for part in (images.tuning, images.private)
        for image, label in zip(part.images, part.labels, strict=True)
    }
    assert found == given


def test_a_spoiled_download_is_refused_and_leaves_nothing(digits_site, tmp_path):
    (digits_site / "t10k-labels-idx1-ubyte.gz").write_bytes(b"spoiled")
    with pytest.raises(UsageError, match="cannot be downloaded"):
        load("mnist", tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_a_root_that_is_a_file_is_refused(no_network, tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(UsageError, match="cannot be downloaded"):
        load("mnist", tmp_path / "root")
