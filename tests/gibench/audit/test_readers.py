"""What clients send is read alike from every format, and what is no update gets one clear line."""

import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import gibench
from gibench.audit.looks import look
from gibench.audit.names import by_name, numbers, parameters
from gibench.audit.observe import kind_of
from gibench.audit.protocol import Protocol
from gibench.audit.readers import read
from gibench.device import PeakMemory
from gibench.errors import UsageError
from tests.gibench.audit.conftest import network

TENSORS = {name: torch.randn_like(each) for name, each in network((1, 4, 4), 5).state_dict().items()}
MODEL = network((1, 4, 4), 5)
COUNT = numbers(MODEL)


def write(folder, kind):
    arrays = {name: tensor.numpy() for name, tensor in TENSORS.items()}
    file = folder / kind
    {
        "update.pt": lambda: torch.save(TENSORS, file),
        "list.pth": lambda: torch.save(list(TENSORS.values()), file),
        "update.safetensors": lambda: save_file(TENSORS, file),
        "update.npz": lambda: np.savez(file, **arrays),
        "zipped.npz": lambda: np.savez_compressed(file, **arrays),
        "list.npz": lambda: np.savez(file, *arrays.values()),
    }[kind]()
    return file


KINDS = ["update.pt", "list.pth", "update.safetensors", "update.npz", "zipped.npz", "list.npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_bits(tmp_path, kind):
    found = by_name(read(write(tmp_path, kind), "update", COUNT), MODEL, "update")
    assert list(found) == list(TENSORS)
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_is_one_line(tmp_path, kind):
    file = write(tmp_path, kind)
    whole = file.read_bytes()
    for share in (0, 0.3, 0.9):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UsageError, match=f"'{kind}'") as error:
            read(file, "update", COUNT)
        assert "\n" not in str(error.value)


@settings(max_examples=50)
@given(st.sampled_from(["a.pt", "a.npz", "a.safetensors"]), st.binary(max_size=200))
def test_noise_is_no_file(tmp_path_factory, name, content):
    file = tmp_path_factory.getbasetemp() / name
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot be read|is damaged"):
        read(file, "update", COUNT)


def test_flower_s_arrays_are_named_in_the_order_of_the_state():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten())
    arrays = [each.numpy() for each in model.state_dict().values()]  # buffers included, as NumPyClient hands them over
    found = by_name(read(arrays, "update", numbers(model)), model, "update")
    assert list(found) == list(model.state_dict())
    assert list(parameters(found, model, "update")) == [name for name, _ in model.named_parameters()]
    trained = [each.detach().numpy() for each in model.parameters()]
    assert list(by_name(read(trained, "update", numbers(model)), model, "update")) == list(
        dict(model.named_parameters())
    )


class Runs:
    """A pickle of it would run code."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


def test_no_pickle_is_opened(tmp_path):
    for name in ("update.pt", "update.npz"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": Runs()}))
    torch.save({"a": Runs()}, tmp_path / "model.pt")
    torch.save({"a": np.ones(3)}, tmp_path / "numpy.pt")
    np.savez(tmp_path / "objects.npz", a=np.array([Runs()], dtype=object))
    for file in tmp_path.iterdir():
        with pytest.raises(UsageError, match=r"a pickle|cannot be read"):
            read(file, "update", COUNT)
    with pytest.raises(UsageError, match=r"pickle of more than tensors.*torch\.as_tensor"):
        read(tmp_path / "numpy.pt", "update", COUNT)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**24))
    with pytest.raises(UsageError, match="unpacks to 16777216 bytes"):
        read(tmp_path / "bomb.npz", "update", COUNT)


def test_a_zip_bomb_that_says_it_is_small_is_not_unpacked(tmp_path):
    content = b"\x93NUMPY\x01\x00v\x00" + f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**26},), }}".encode()
    bomb = content.ljust(127) + b"\n" + bytes(2**26)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bomb)
    held = (tmp_path / "bomb.npz").read_bytes()
    told = len(bomb).to_bytes(4, "little")
    assert held.count(told) == 2
    (tmp_path / "bomb.npz").write_bytes(held.replace(told, (200).to_bytes(4, "little")))
    with PeakMemory(torch.device("cpu")) as memory, pytest.raises(UsageError, match=r"'bomb\.npz' cannot be read"):
        read(tmp_path / "bomb.npz", "update", COUNT)
    assert memory.peak_mb is None or memory.peak_mb < 2**26 / 2**20


def test_a_file_of_torch_that_was_compressed_is_refused(tmp_path):
    with zipfile.ZipFile(write(tmp_path, "update.pt")) as whole:
        content = {entry.filename: whole.read(entry) for entry in whole.infolist()}
    with zipfile.ZipFile(tmp_path / "other.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    with pytest.raises(UsageError, match=r"'other\.pt' is compressed, as torch\.save leaves no file"):
        read(tmp_path / "other.pt", "update", COUNT)


def test_a_file_of_old_torch_is_read(tmp_path):
    torch.save(TENSORS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    found = by_name(read(tmp_path / "old.pt", "update", COUNT), MODEL, "update")
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("kind", ["big.pt", "big.safetensors"])
def test_a_large_update_is_mapped_and_not_copied(tmp_path, kind):
    megabytes = 128
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2**14, megabytes * 16))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for each in model.parameters():
            each.fill_(0.01)
    sent = {name: each.detach() for name, each in model.state_dict().items()}
    file = tmp_path / kind
    torch.save(sent, file) if kind.endswith("pt") else save_file(sent, file)
    with PeakMemory(torch.device("cpu")) as memory:
        found = parameters(by_name(read(file, "update", numbers(model)), model, "update"), model, "update")
        kind_of({name: -each for name, each in found.items()}, sent, Protocol(image_shape=(1, 128, 128)), True)
        look(found, sent, 2**14)
    if memory.peak_mb is None:
        pytest.skip("the system does not tell a process's peak")
    assert memory.peak_mb < 2.75 * megabytes  # the file, what the test negates, and blocks; one copy more is a third


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda sent: sent | {"1.weight": sent["1.weight"] * torch.nan},
            r"NaN or infinity at '1.weight' \(80 entries\)",
        ),
        (lambda sent: {name: each for name, each in sent.items() if name != "1.bias"}, "lacks '1.bias'"),
        (lambda sent: sent | {"fc9.weight": torch.ones(2)}, "has 'fc9.weight', which the model has not"),
        (lambda sent: {f"module.{name}": each for name, each in sent.items()}, "leave out the prefix 'module.'"),
        (lambda sent: dict(enumerate(sent.values())), "the key 0, which is no name"),
        (
            lambda sent: sent | {"1.weight": sent["1.weight"].T},
            r"shape \[16, 5\] at '1.weight', and the model \[5, 16\]",
        ),
        (lambda sent: list(sent.values())[::-1], r"shape \[10\] at '1.weight'.*another order"),
        (lambda sent: list(sent.values())[:5], "a list of 5 arrays, and the model has 6 trainable"),
        (lambda sent: sent | {"1.bias": sent["1.bias"].int()}, "holds int32 at '1.bias'"),
        (lambda sent: sent | {"1.bias": "text"}, "holds a str at '1.bias'"),
        (lambda sent: {name: 0 * each for name, each in sent.items()}, "zero everywhere"),
        (lambda sent: MODEL.state_dict(), "are weights, not a delta"),
        (lambda sent: SimpleNamespace(), "is a SimpleNamespace: give a dict"),
    ],
)
def test_what_is_no_update_of_this_model_is_one_line(change, complaint):
    with pytest.raises(UsageError, match=complaint) as error:
        gibench.audit(MODEL, change(TENSORS), (1, 4, 4), kind="delta", device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "options", "complaint"),
    [
        ((28, 28, 1), {}, "did you mean 1,28,28"),
        ((1, 5, 5), {}, "does not take images of shape 1,5,5"),
        ((784,), {}, "image_shape"),
        ((1, 4, 4), {"std": 0}, "std must be above 0"),
        ((1, 4, 4), {"mean": (0.1, 0.2)}, "mean has 2 numbers for 1 channels"),
        ((1, 4, 4), {"training": {"optimiser": "sgd"}}, "no setting 'optimiser'"),
        ((1, 4, 4), {"training": {"loss": "mse"}}, "only cross-entropy is known"),
        ((1, 4, 4), {"training": {"weight_decay": 0.1}, "kind": "delta"}, "give lr too"),
        ((1, 4, 4), {"attacks": ["nope"]}, "unknown attack 'nope'"),
        ((1, 4, 4), {"weights": {"a": torch.ones(1)}}, "the weights has 'a'"),
        ((1, 4, 4), {"weights": MODEL.state_dict(), "kind": "weights"}, "larger than the weights: are these"),
    ],
)
def test_a_mistake_in_the_protocol_is_one_line(shape, options, complaint):
    update = {name: 100 * tensor for name, tensor in TENSORS.items()}
    with pytest.raises(UsageError, match=complaint) as error:
        gibench.audit(MODEL, update, shape, device="cpu", **options)
    assert "\n" not in str(error.value)
