"""torchvision's data sets: downloaded once, whole or not at all, and a clear line where they cannot be."""

import gzip
import hashlib
import io
import pickle
import shutil
import socket
import struct
import tarfile
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision import datasets

from gibench.datasets import torchvision
from gibench.errors import UsageError
from gibench.registry import create, resolve

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
def test_no_network_is_one_clear_line(name, no_network, tmp_path, capfd):
    with pytest.raises(UsageError, match=r"cannot be downloaded .*: connect to the network, or set root= to") as info:
        load(name, tmp_path)
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


def test_an_interrupted_download_is_completed(digits_site, tmp_path):
    root = tmp_path / "root"
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"the beginning")
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert len(load("mnist", root).public) == TRAIN
    assert [file.name for file in root.iterdir()] == ["MNIST"]


def test_archives_that_are_there_are_not_downloaded_again(digits_site, tmp_path, no_network):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in digits_site.iterdir():
        file.rename(raw / file.name)
    assert len(load("mnist", tmp_path).public) == TRAIN


def test_what_cannot_be_completed_says_what_is_missing(no_network, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"whatever")
    with pytest.raises(
        UsageError, match=r"raw lacks train-labels-.*, t10k-labels-idx1-ubyte of MNIST, which cannot be"
    ):
        load("mnist", tmp_path)


def shortened(content):
    return content[: len(content) // 2]


def other_count(content):
    return content[:4] + struct.pack(">I", 7) + content[8:]


@pytest.mark.parametrize("name", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
@pytest.mark.parametrize(
    "damage", [shortened, other_count, lambda _: b"", lambda _: b"no such format", lambda whole: whole[:6]]
)
def test_damaged_digits_name_the_folder_and_the_mend(digits_site, tmp_path, name, damage):
    load("mnist", tmp_path)
    file = next((tmp_path / "MNIST" / "raw").glob(f"{name}-*ubyte"))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        UsageError, match=rf"MNIST in {file.parent} are damaged \(.+\): delete {file.parent} and run again$"
    ) as info:
        load("mnist", tmp_path)
    assert "\n" not in str(info.value)
    shutil.rmtree(file.parent)
    assert len(load("mnist", tmp_path).public) == TRAIN


def test_labels_out_of_range_are_damage(digits_site, tmp_path):
    load("mnist", tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UsageError, match=r"damaged \(no such label\)"):
        load("mnist", tmp_path)


@pytest.fixture
def cifar_archive(tmp_path, monkeypatch):
    """CIFAR-10's archive, small and made up; torchvision now expects its MD5."""
    generator = np.random.default_rng(0)
    contents = {
        name: {"data": generator.integers(0, 256, (12, 3072), dtype=np.uint8), "labels": np.arange(12) % 10}
        for name in ("data_batch_1", "data_batch_2", "test_batch")
    }
    contents["batches.meta"] = {"label_names": [str(number) for number in range(10)]}
    packed = {name: pickle.dumps(content) for name, content in contents.items()}
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in packed.items()}
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in packed.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, md5[name]] for name in packed if "data" in name])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_an_archive_in_the_root_is_unpacked_without_a_network(cifar_archive, no_network, tmp_path):
    assert len(load("cifar10", tmp_path).public) == 24
    cifar_archive.unlink()
    assert len(load("cifar10", tmp_path).public) == 24


def test_a_damaged_archive_is_named(cifar_archive, no_network, tmp_path):
    cifar_archive.write_bytes(shortened(cifar_archive.read_bytes()))
    with pytest.raises(
        UsageError, match=r"CIFAR10 is not in .* \(the archive there is damaged: cifar-10-python.tar.gz\)"
    ):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_spoiled_batch_is_named_and_deleting_it_mends(cifar_archive, no_network, tmp_path, name):
    load("cifar10", tmp_path)
    file = tmp_path / "cifar-10-batches-py" / name
    file.write_bytes(b"spoiled")
    with pytest.raises(UsageError, match=rf"{file} is damaged: delete it and run again$"):
        load("cifar10", tmp_path)
    file.unlink()
    assert len(load("cifar10", tmp_path).public) == 24


def test_a_missing_batch_without_a_network_is_named(cifar_archive, no_network, tmp_path):
    load("cifar10", tmp_path)
    cifar_archive.unlink()
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(UsageError, match="cifar-10-batches-py lacks test_batch of CIFAR10, which cannot be downloaded"):
        load("cifar10", tmp_path)


def test_a_relative_root_is_absolute_in_the_spec_and_the_home_directory_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(resolve("dataset", "mnist:root=data")) == f"mnist:root={tmp_path}/data"
    assert str(resolve("dataset", "mnist")) == "mnist:root=~/.cache/gibench"
