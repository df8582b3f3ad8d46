"""A user's own network: `MODULE:FACTORY` or `FILE.py:FACTORY`, with arguments as in `net.py:make(width=200)`.

The user's code, and what it imports of the folder that it lies in, is read anew each time and leaves no module behind:
two files of one name do not meet, and the network travels to other processes with its code.
"""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gibench import modules
from gibench.errors import UsageError
from gibench.spec import parse
from gibench.text import type_of

_GRAMMAR = "write MODULE:FACTORY or FILE.py:FACTORY"
_INSTALLED = {"site-packages", "dist-packages"}  # folders


@dataclass(frozen=True)
class Factory:
    """What makes a network: a function, a class, or the network itself."""

    text: str
    place: str  # a module, or a file
    name: str  # of the factory in it
    given: Mapping[str, Any]  # its arguments

    @classmethod
    def of(cls, text: str) -> Self:
        """Read what people write.

        Raises:
            UsageError: it names no factory.
        """
        head, opened, arguments = text.partition("(")
        place, colon, name = head.rpartition(":")
        if not (colon and place and name.isidentifier()) or (opened and not arguments.endswith(")")):
            raise UsageError(f"'{text}' names no model: {_GRAMMAR}, or :FACTORY(key=value)")
        settings = parse(f"{name}:{arguments[:-1]}").settings if arguments[:-1].strip() else ()
        return cls(text, place, name, {key: _value(value) for key, value in settings})

    def absolute(self) -> str:
        """The same text, in which a file is named wherever one stands."""
        if not self.place.endswith(".py"):
            return self.text
        return os.path.realpath(os.path.expanduser(self.place)) + self.text.removeprefix(self.place)

    def files(self) -> list[Path]:
        """The files whose code makes the network: the user's own, or the package that it is installed with.

        Raises:
            UsageError: there is no such file or module.
        """
        return self._code()[1]

    def make(self, **offered: Any) -> nn.Module:
        """Run the user's code; a network that the module holds is taken as it is.

        Args:
            offered: arguments that the factory is handed if it has parameters of these names.

        Raises:
            UsageError: no such module, file or factory, or it raises, or what it makes is no network.
        """
        root, files = self._code()
        with _importing(root, files):
            made = self._named(root)
            if not isinstance(made, nn.Module):
                try:
                    made = made(**_wanted(made, offered) | dict(self.given))
                except (Exception, SystemExit) as error:  # whatever the user's own code raises is told with its cause
                    raise UsageError(
                        f"the factory of '{self.text}' fails ({_cause(error)}): mend it, or give its arguments"
                    ) from error
        if not isinstance(made, nn.Module):
            raise UsageError(f"'{self.text}' makes {type_of(made)}: it must make a torch.nn.Module")
        return made

    def _code(self) -> tuple[Path | None, list[Path]]:
        """The folder that the user's code is imported from, none where it is installed, and its files."""
        if self.place.endswith(".py"):
            file = Path(self.place).expanduser().resolve()
            if not file.is_file():
                raise UsageError(f"there is no file '{self.place}': {_GRAMMAR}")
            return file.parent, _closure(file.parent, file)
        with _importing(Path.cwd(), []):
            spec = modules.find(self.place)
        if spec is None:
            raise UsageError(
                f"'{self.place}' cannot be imported (ModuleNotFoundError): {_GRAMMAR}, and run where it can be"
            )
        if spec.origin in ("built-in", "frozen"):
            return None, []  # a part of Python itself
        if not spec.origin or not os.path.isfile(spec.origin):
            raise UsageError(f"'{self.place}' is a folder or no Python code: {_GRAMMAR}, of a module in it")
        file = Path(spec.origin).resolve()
        up = self.place.count(".") + (file.name == "__init__.py")
        root = file.parents[up]
        if file.is_relative_to(sysconfig.get_path("stdlib")) or _INSTALLED & set(file.parts):
            return None, [root / self.place.partition(".")[0] if up else file]
        return root, _closure(root, file)

    def _named(self, root: Path | None) -> Any:
        """What the module holds under the name."""
        try:
            module = _executed(Path(self.place), root) if self.place.endswith(".py") else None
            module = module or importlib.import_module(self.place)
        except (Exception, SystemExit) as error:  # whatever the user's own code raises is told with its cause
            raise UsageError(
                f"'{self.place}' cannot be imported ({_cause(error)}): mend it, or run where it can be"
            ) from error
        if not hasattr(module, self.name):
            raise UsageError(f"'{self.place}' has no '{self.name}': name a function or class that makes the network")
        return getattr(module, self.name)


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a network without sizes.

    Raises:
        UsageError: it has lazy layers.
    """
    if any(is_lazy(each) for each in model.parameters()):
        raise UsageError("the model has lazy layers, whose sizes nobody knows before a batch: make it with sizes")


def own_copy(model: nn.Module) -> nn.Module:
    """A copy of a network, whose weights may be written.

    Raises:
        UsageError: it holds what cannot be copied, such as weights that a hook computes of others.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the parts of the user's own model raise is told with its cause
        computed = (
            f"{name}.{key}" if name else key
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, Tensor) and not value.is_leaf
        )
        what = next((f"'{each}' is a tensor that is computed of others" for each in computed), _cause(error))
        raise UsageError(
            f"the model cannot be copied ({what}): keep parameters and buffers alone in it; for weights that are "
            "normalised or pruned use torch.nn.utils.parametrizations, or prune.remove"
        ) from error


def count_logits(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Logits of an image, found out in the model's mode; its buffers and torch's generators stay as they are.

    Raises:
        UsageError: the model does not take such images, or does not give a row of logits for each.
    """
    like = next(model.parameters(), torch.empty(0))
    grey = torch.full((2, *image_shape), 0.5, device=like.device, dtype=like.dtype)
    given = grey.clone()
    shape = ",".join(map(str, image_shape))
    try:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # batch norm would write the model's
        with torch.no_grad(), torch.random.fork_rng([like.device] if like.is_cuda else []):
            logits = torch.func.functional_call(model, buffers, (given,))
    except Exception as error:  # whatever the user's own model raises is told with its cause
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"the model does not take images of shape {shape} ({cause}): give it those of the shape C,H,W that it takes"
        ) from error
    if not torch.equal(given, grey):
        raise UsageError("the model writes over the images that it is given: let its forward begin with x = x.clone()")
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        what = f"shape {list(logits.shape)} for 2" if isinstance(logits, Tensor) else type_of(logits)
        raise UsageError(
            f"the model must give logits of shape [N, classes] for N images, and gives {what}: wrap it so that it does"
        )
    return logits.shape[1]


@contextmanager
def _importing(root: Path | None, files: list[Path]) -> Iterator[None]:
    """Let the body import what lies in a folder, these files anew, and leave what can be imported as it was."""
    if root is None:
        yield
        return
    before = _modules_of(files)
    for name in before:
        del sys.modules[name]
    path, writes = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True  # it is told apart by whole seconds, and files are edited and run again within one
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes
        for name in _modules_of(files):
            del sys.modules[name]
        sys.modules.update(before)


def _modules_of(files: list[Path]) -> dict[str, ModuleType]:
    """The modules that were imported from these files, by name."""
    wanted, names = set(map(os.path.realpath, files)), {file.name for file in files}

    def is_wanted(file: str) -> bool:  # thousands are imported, and a path takes long to resolve
        may_be = os.path.basename(file) in names or os.path.islink(file)
        return may_be and os.path.realpath(file) in wanted

    found = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {name: sys.modules[name] for name, file in found.items() if file and is_wanted(file)}


def _executed(place: Path, root: Path | None) -> ModuleType:
    path = place.expanduser().resolve()
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    assert spec is not None  # of a .py file there is one, with a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look a class's module up
    spec.loader.exec_module(module)
    return module


def _closure(root: Path, file: Path) -> list[Path]:
    """A file and what it imports of the folder that it is imported from."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        found.add(each)
        name = ".".join(each.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        spec = ModuleSpec(name, None, is_package=each.name == "__init__.py")
        try:
            imported = list(modules.imports(spec, ast.parse(each.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # told once it is run
        for parts in (name.split(".") for name in imported if name):
            places = [root.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
            options = [option for place in places for option in (place.with_suffix(".py"), place / "__init__.py")]
            waiting += [option for option in options if option.is_file()]
    return sorted(found)


def _wanted(factory: Any, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is offered, that which the factory has parameters for."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # nothing that is called, or nothing that says how
        return {}
    known = {name for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}
    if len(known) < len(parameters):
        known.add("num_classes")  # which torchvision's and timm's factories hand on
    return {name: value for name, value in offered.items() if name in known}


def _value(text: str) -> Any:
    """A number, a tuple ... where it reads as one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _cause(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
