"""What a plugin can change, in a process, for whatever runs there after it: noted once, and compared after each cell.

It finds what is careless. What hides its traces on purpose can do so, as it runs in the same process.
"""

from __future__ import annotations

import gc
import locale
import os
import pickle
import random
import signal
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from operator import is_
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from gibench.registry import GROUPS, entries

_CODE = (
    *(FunctionType, BuiltinFunctionType, type, staticmethod, classmethod, property),
    *(MethodDescriptorType, WrapperDescriptorType, ClassMethodDescriptorType, np.ufunc, type(np.mean)),
)
_PYTHON = {"builtins", "random", "math", "time", "os", "copy", "json"}
_WATCHED = {"gibench", "torch", "numpy", "scipy", "skimage", "lpips", "PIL"} | _PYTHON  # packages
_HOOKS, _HOOKED = torch.nn.modules.module, ("forward_pre", "forward", "backward")
_MOST_FILES = 200  # left open: what leaks a few is no harm to others
_SET_BY_LIBRARIES = "TORCHINDUCTOR_", "KMP_"  # variables, when something is first imported
_TINY = sys.float_info.min


def _limits() -> Any:
    import resource  # there is none on Windows

    return [resource.getrlimit(number) for name, number in vars(resource).items() if name.startswith("RLIMIT_")]


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be asked by setting it
    os.umask(mask)
    return mask


def _has_children() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _stream(number: int) -> tuple[int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


# How to ask for each, by the name that it is told under.
_STATE: Mapping[str, Callable[[], Any]] = {
    "default dtype": torch.get_default_dtype,
    "default device": torch.get_default_device,
    "grad mode": lambda: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    "threads": lambda: (torch.get_num_threads(), torch.get_num_interop_threads()),
    "matmul precision": torch.get_float32_matmul_precision,
    "deterministic mode": torch.get_deterministic_debug_mode,
    "anomaly mode": lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
    "autocast": lambda: [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
    "cuDNN": lambda: [getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")],
    "flushing of tiny numbers": lambda: struct.pack("d", _TINY / 2),  # where they are, they equal zero, too
    "torch modes": lambda: (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
    "module hooks": lambda: [len(getattr(_HOOKS, f"_global_{name}_hooks")) for name in _HOOKED],
    "torch's random state": lambda: torch.get_rng_state().numpy().tobytes(),
    "numpy's random state": lambda: pickle.dumps(np.random.get_state()),
    "Python's random state": random.getstate,
    "numpy's errors": np.geterr,
    "working folder": os.getcwd,
    "environment": lambda: {name: text for name, text in os.environ.items() if not name.startswith(_SET_BY_LIBRARIES)},
    "umask": _umask,
    "import path": lambda: list(sys.path),
    "streams": lambda: (*map(id, (sys.stdin, sys.stdout, sys.stderr)), *map(_stream, range(3))),
    "open files": lambda: len(os.listdir("/proc/self/fd")) // _MOST_FILES,
    "limits": _limits,
    "signal handlers": lambda: [signal.getsignal(each) for each in sorted(signal.valid_signals())],
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
    "alarm": lambda: signal.getitimer(signal.ITIMER_REAL),
    "processes": _has_children,
    "Python threads": threading.active_count,
    "tracing": lambda: (sys.gettrace(), sys.getprofile(), sys.excepthook, threading.excepthook),
    "interpreter": lambda: (gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(), sys.getswitchinterval()),
    "socket timeout": socket.getdefaulttimeout,
    "locale": lambda: locale.setlocale(locale.LC_ALL),
    "warnings": lambda: [each for each in warnings.filters if each[0] == "error"],
}


class _Noted(NamedTuple):
    """The code that a module or class held."""

    owner: Any
    names: tuple[str, ...]
    values: tuple[Any, ...]
    size: int  # of all that it held

    @classmethod
    def of(cls, owner: Any) -> Self:
        held = dict(vars(owner))
        code = {name: value for name, value in held.items() if _is_code(value)}
        return cls(owner, tuple(code), tuple(code.values()), len(held))

    def is_as_it_was(self) -> bool:
        held = vars(self.owner)
        return len(held) == self.size and all(map(is_, map(held.get, self.names), self.values))


class Code:
    """The code of the libraries that cells share, as it stands when this is made."""

    def __init__(self) -> None:
        self._noted: dict[str, _Noted] = {}
        self.changes()

    def changes(self) -> list[str]:
        """The modules and classes that plugins have written into. What was imported meanwhile is watched, too."""
        foreign = _foreign()
        if self._noted and not foreign & sys.modules.keys():
            return []  # no code ran but our own
        found = []
        for name, noted in self._noted.items():
            if isinstance(noted.owner, ModuleType) and sys.modules.get(name) is not noted.owner:
                found.append(name)
            elif not noted.is_as_it_was():
                self._noted[name] = _Noted.of(noted.owner)
                found += [name] if _is_patched(name, noted, foreign) else []
        new = self._unwatched()
        self._noted |= {name: _Noted.of(owner) for name, owner in new.items()}
        return found + [name for name, owner in new.items() if _holds(owner, foreign)]

    def _unwatched(self) -> dict[str, Any]:
        new: dict[str, Any] = {}
        for name, module in list(sys.modules.items()):
            if name not in self._noted and name.partition(".")[0] in _WATCHED and isinstance(module, ModuleType):
                classes = [each for each in vars(module).copy().values() if issubclass(type(each), type)]
                new[name] = module
                new |= {f"{name}.{each.__qualname__}": each for each in classes if each.__module__ == name}
        return new


class State:
    """What holds for the whole process, as it is when this is made."""

    def __init__(self) -> None:
        self._before = _state()

    def changes(self) -> list[str]:
        """What differs now, in words."""
        now = _state()
        return [name for name, before in self._before.items() if now[name] != before]


def _foreign() -> set[str]:
    """The packages of the plugins that others have written."""
    return {
        each.point.module.partition(".")[0]
        for kind in GROUPS
        for each in entries(kind)
        if each.distribution != "gibench"
    }


def _is_patched(name: str, noted: _Noted, foreign: set[str]) -> bool:
    """Whether others' code stands where there was some; a library may replace its own, as optimizers of torch do."""
    held, own = vars(noted.owner), name.partition(".")[0]
    replaced = [
        held.get(key) for key, value in zip(noted.names, noted.values, strict=True) if held.get(key) is not value
    ]
    return any(_origin(value) != own for value in replaced) or _holds(noted.owner, foreign)


def _holds(owner: Any, foreign: set[str]) -> bool:
    return any(_is_code(value) and _origin(value) in foreign for value in vars(owner).copy().values())


def _state() -> dict[str, Any]:
    return {name: _asked(ask) for name, ask in _STATE.items()}


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:  # what cannot be asked here, or any more
        return type(error)


def _is_code(value: Any) -> bool:
    return issubclass(type(value), _CODE)  # some objects of torch's warn where isinstance asks them


def _origin(value: Any) -> str:
    """The package that a piece of code was written in, whatever it says of itself."""
    while (inner := getattr(value, "fget", None) or getattr(value, "__func__", None)) is not None:
        value = inner  # of a property, a class method
    within = getattr(value, "__globals__", None)
    name = within.get("__name__") if isinstance(within, dict) else getattr(value, "__module__", None)
    return str(name or type(value).__module__).partition(".")[0]
