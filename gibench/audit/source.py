"""The model of an audit: `MODULE:FACTORY` or `FILE.py:FACTORY`, with arguments as in `net.py:make(width=200)`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from gibench.errors import UsageError
from gibench.spec import parse


def load_model(text: str) -> nn.Module:
    """Run the user's code that makes the network; a network that the module holds is taken as it is.

    Raises:
        UsageError: no such module, file or factory, or it raises, or what it makes is no network.
    """
    head, opened, arguments = text.partition("(")
    place, colon, name = head.rpartition(":")
    if not (colon and place and name.isidentifier()) or (opened and not arguments.endswith(")")):
        raise UsageError(f"'{text}' names no model: write MODULE:FACTORY or FILE.py:FACTORY, or :FACTORY(key=value)")
    settings = parse(f"{name}:{arguments[:-1]}").settings if arguments[:-1].strip() else ()
    module = _module(place)
    if not hasattr(module, name):
        raise UsageError(f"'{place}' has no '{name}': name a function or class that makes the network")
    made = getattr(module, name)
    if not isinstance(made, nn.Module):
        try:
            made = made(**{key: _value(value) for key, value in settings})
        except (Exception, SystemExit) as error:  # whatever the user's own code raises is told with its cause
            raise UsageError(
                f"the factory of '{text}' fails ({_cause(error)}): mend it, or give its arguments"
            ) from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"'{text}' makes a {type(made).__name__}: it must make a torch.nn.Module")
    return made


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py" and not path.is_file():
        raise UsageError(f"there is no file '{place}': name the model as MODULE:FACTORY or FILE.py:FACTORY")
    try:
        if path.suffix != ".py":
            if "" not in sys.path:
                sys.path.insert(0, "")  # the working folder, as `python -m` has it
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
        assert spec is not None  # of a .py file there is one, with a loader
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses and fx look a class's module up
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises is told with its cause
        raise UsageError(f"'{place}' cannot be imported ({_cause(error)}): mend it, or run where it can be") from error
    return module


def _value(text: str) -> Any:
    """A number, a tuple ... where it reads as one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _cause(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
