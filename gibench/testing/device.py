"""A simulated accelerator: its tensors compute on the CPU, refuse to mix with the CPU's, and every wait is noted.

Its tensors say the device `meta`, so code that asks takes the branch of an accelerator. Generators are of a device too.
What would make the host wait for a real device (values asked for, sizes that depend on values, errors checked), and
what would be copied between the two, is counted by the line of this project that asks for it. What happens inside one
operation, such as a decomposition, is not seen, nor are kernels or memory.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "meta"
_HERE = Path(__file__).parents[2]
_OURS = tuple(str(_HERE / folder) for folder in ("attacks", "defenses", "gibench"))
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_WAITS = {
    *(f"aten::{name}" for name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount")),
    *(f"aten::{name}" for name in ("_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors")),
}
_Generator = torch.Generator


@dataclass
class Log:
    """What a real device would have been asked, by line of this project."""

    waits: Counter[str] = field(default_factory=Counter)  # of the host for the device
    copies: Counter[str] = field(default_factory=Counter)  # between the two

    def waits_in(self, folder: str) -> int:
        """The waits that a top-level folder is to blame for."""
        return sum(count for line, count in self.waits.items() if line.startswith(f"{folder}/"))


class DeviceTensor(Tensor):
    """A tensor of the device, around one of the CPU that holds its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME),
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of the device to numpy: copy it to the CPU first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without what it calls it with
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{operation} on the device outside `simulated`")


class DeviceGenerator(_Generator):
    """A generator of the CPU that says it is the device's."""

    device = torch.device(NAME)


class _AnyGenerator(_Generator):
    """What `torch.Generator` is meanwhile: it makes one of either kind."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:  # type: ignore[misc]
        return DeviceGenerator() if torch.device(device).type == NAME else _Generator(device)


def _line() -> str:
    """The innermost line of this project that is being run: `folder/.../file.py:number`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS) and frame.f_code.co_filename != __file__:
            return f"{Path(frame.f_code.co_filename).relative_to(_HERE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere:0"


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation of torch, computed on the CPU."""

    def __init__(self, log: Log) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.log = log

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a wrapper around every operation that takes most of the time

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = operation._schema.name
        tensors: list[Tensor] = []
        _each(tensors.append, (*args, *kwargs.values()))
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        here = bool(ours)
        if kwargs.get("device") is not None:
            here = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = torch.device("cpu") if here else kwargs["device"]
        if name in ("aten::_to_copy", "aten::copy_"):
            self._copied(name, tensors, here)
        elif ours:
            self._refuse_mixtures(name, args, tensors)
            if name in _WAITS or (name in _INDEXING and _by_mask(name, args)):
                self.log.waits[_line()] += 1
        named = {key: _each(held, value) for key, value in kwargs.items()}
        result = operation(*_each(held, args), **named)
        if torch.Tag.inplace_view in operation.tags and ours:
            _reshape_in_place(operation, args, kwargs)
        known = {id(tensor.held): tensor for tensor in ours}  # what was changed in place
        if not here:
            return result
        return _each(lambda tensor: known[id(tensor)] if id(tensor) in known else DeviceTensor(tensor), result)

    def _copied(self, name: str, tensors: list[Tensor], here: bool) -> None:
        source = tensors[-1] if name == "aten::copy_" else tensors[0]
        target = isinstance(tensors[0], DeviceTensor) if name == "aten::copy_" else here
        if isinstance(source, DeviceTensor) != target:
            self.log.copies[_line()] += 1
            if not target:
                self.log.waits[_line()] += 1

    def _refuse_mixtures(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        foreign = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.ndim > 0]
        if name in _INDEXING and isinstance(args[0], DeviceTensor):  # which takes indices from the CPU
            if foreign:
                self.log.copies[_line()] += len(foreign)
            foreign = [tensor for tensor in foreign if len(args) > 2 and tensor is args[2]]
        if foreign:
            shapes = [tuple(tensor.shape) for tensor in foreign]
            raise RuntimeError(f"expected all tensors on one device, but {name} at {_line()} has {shapes} on the CPU")


def _reshape_in_place(operation: Any, args: Any, kwargs: Any) -> None:
    """Let the tensor around the values have their new shape too."""
    before = torch._C._meta_in_tls_dispatch_include()
    with no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            operation(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _by_mask(name: str, args: Any) -> bool:
    """Whether an index is a mask, whose size the host asks for; one value is filled in without asking."""
    masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return masks and not ("put" in name and args[2].numel() == 1)


def held(tensor: Tensor) -> Tensor:
    """Its values on the CPU, whatever it is on."""
    return tensor.held if isinstance(tensor, DeviceTensor) else tensor


def _each(function: Callable[[Tensor], Any], values: Any) -> Any:
    """The function of every tensor in nested tuples and lists, all else as it is."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, tuple | list):
        return type(values)([_each(function, value) for value in values])
    return values


class _Functions(TorchFunctionMode):
    """What does not reach the operations as it was asked for: values from Python, and generators."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if function in (torch.tensor, torch.as_tensor) and _is_device(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(NAME)
        if isinstance(first, DeviceTensor):
            if function is Tensor.new_tensor:
                return torch.tensor(args[1], dtype=kwargs.get("dtype", first.dtype)).to(NAME)
            if function is Tensor.tolist:
                self.log.waits[_line()] += 1
                return first.held.tolist()
            if function in (Tensor.__getitem__, Tensor.__setitem__):
                return function(first, _indices(args[1]), *args[2:])
        if isinstance(generator := kwargs.get("generator"), _Generator):
            device = first.device if isinstance(first, Tensor) else kwargs.get("device", "cpu")
            if isinstance(generator, DeviceGenerator) != _is_device(device):
                raise RuntimeError(f"a generator of another device than {device} at {_line()}")
        return function(*args, **kwargs)


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _indices(index: Any) -> Any:
    """Lists among indices as tensors on the CPU, which is what torch makes of them."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    return torch.tensor(index, dtype=None if index else torch.long) if isinstance(index, list) else index


@contextmanager
def simulated() -> Iterator[Log]:
    """Let there be the device `NAME` in the body; what it is asked is in the log."""
    log = Log()
    replaces = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter's values cannot move to the device
    torch.Generator = _AnyGenerator  # type: ignore[assignment,misc]
    try:
        with _Operations(log), _Functions(log):
            yield log
    finally:
        torch.Generator = _Generator  # type: ignore[misc]
        torch.__future__.set_overwrite_module_params_on_conversion(replaces)
