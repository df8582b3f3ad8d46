"""What Flower and NVFlare hand over, by the real packages where they are installed, else by objects of their shape."""

import io
from collections import UserDict
from enum import StrEnum
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import gibench
from gibench.audit.federated import kind_told
from gibench.audit.names import by_name, numbers
from gibench.audit.readers import read
from gibench.errors import UsageError
from tests.gibench.audit.clients import Real
from tests.gibench.audit.conftest import network

MODEL = torch.nn.Sequential(network((1, 4, 4), 5), torch.nn.BatchNorm1d(10))
STATE = {name: each.clone() + 1 for name, each in MODEL.state_dict().items()}
NUMBERS = numbers(MODEL)


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Looks:
    """Objects of the frameworks' shape."""

    class Type(StrEnum):
        FULL = "FULL"
        DIFF = "DIFF"

    def record(self, state):
        named = state if isinstance(state, dict) else dict(zip(map(str, range(len(state))), state, strict=True))
        arrays = {name: SimpleNamespace(stype="numpy.ndarray", data=saved(each)) for name, each in named.items()}
        return UserDict(arrays)

    def parameters(self, arrays):
        return SimpleNamespace(tensor_type="numpy.ndarray", tensors=[saved(each) for each in arrays])

    def result(self, arrays):
        return SimpleNamespace(parameters=self.parameters(arrays), num_examples=8)

    def fl_model(self, kind, params):
        return SimpleNamespace(params_type=kind and self.Type(kind), params=params)


@pytest.fixture(params=[Looks, Real], ids=["looks", "real"])
def made(request):
    return request.param()


def arrays():
    return [each.numpy() for each in STATE.values()]


def assert_read(source):
    found = by_name(read(source, "update", NUMBERS), MODEL, "update")
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_flower_s_objects_are_read_to_the_bit(made):
    assert_read(made.record({name: each.numpy() for name, each in STATE.items()}))
    assert_read(made.record(arrays()))  # named "0" to "12", and so not in the order of letters
    assert_read(made.parameters(arrays()))
    assert_read(made.result(arrays()))


def test_nvflare_s_model_is_read_and_states_its_kind(made):
    params = {name: each.numpy() for name, each in STATE.items()}
    assert_read(made.fl_model("DIFF", params))
    assert_read(made.fl_model("FULL", dict(STATE)))
    assert kind_told(made.fl_model("DIFF", params), "auto") == "delta"
    assert kind_told(made.fl_model(None, params), "weights") == "weights"
    assert kind_told(made.fl_model("FULL", params), "weights") == "weights"
    with pytest.raises(UsageError, match=r"an FLModel of weights by its params_type, not a gradient"):
        kind_told(made.fl_model("FULL", params), "gradient")


def test_each_object_is_audited_as_the_file_is(made, plain):
    def audit(update, **options):
        report = gibench.audit(plain.model, update, (1, 28, 28), 0.1307, 0.3081, device="cpu", **options)
        return report.kind, report.certified_pixels, report.images

    _, certified, images = audit(plain.delta, kind="delta")
    delta = {name: each.numpy() for name, each in plain.delta.items()}
    for source in (made.record(delta), made.result(list(delta.values()))):
        kind, found, same = audit(source, kind="delta")
        assert (kind, found) == ("delta", certified) == ("delta", 8)
        assert torch.equal(same, images)
    kind, found, same = audit(made.fl_model("DIFF", delta))
    assert (kind, found) == ("delta", 8)
    assert torch.equal(same, images)
    kind, found, _ = audit(made.fl_model("FULL", plain.after), weights=plain.model.state_dict())
    assert (kind, found) == ("weights", 8)


def test_local_minus_global_of_a_list_is_read_where_numpy_leaves_scalars():
    less = [each - 1 for each in arrays()]
    assert isinstance(less[-1], np.int64)  # of the count that batch norm keeps
    found = by_name(read(less, "update", NUMBERS), MODEL, "update")
    assert int(found["1.num_batches_tracked"]) == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda: SimpleNamespace(tensor_type="pickle", tensors=[b""]), r"holds 'pickle' at 'entry 0', which is not"),
        (lambda: SimpleNamespace(tensor_type="numpy.ndarray", tensors=[b"x"]), r"holds no array at 'entry 0' \("),
        (lambda: SimpleNamespace(tensor_type="numpy.ndarray", tensors=[saved(np.ones(3))[:-9]]), "holds no array"),
        (
            lambda: SimpleNamespace(tensor_type="numpy.ndarray", tensors=[saved(np.array([Looks], dtype=object))]),
            r"holds no array at 'entry 0' \(Object arrays cannot be loaded",
        ),
        (lambda: {"a": SimpleNamespace(stype="torch", data=b"")}, "holds 'torch' at 'a'"),
        (lambda: SimpleNamespace(params_type=None, params=[1]), "an FLModel whose params are a list"),
        (lambda: {"a": np.ones(2, np.longdouble)}, "holds a float128 at 'a'"),
        (lambda: {"a": np.array(["text"])}, "which is no dense tensor"),
        (lambda: {"a": torch.ones(2, device="meta")}, "which is no dense tensor"),
        (lambda: {"a": torch.eye(2).to_sparse()}, "which is no dense tensor"),
    ],
)
def test_what_holds_no_arrays_is_one_line(change, complaint):
    with pytest.raises(UsageError, match=complaint) as error:
        read(change(), "update", NUMBERS)
    assert "\n" not in str(error.value)
