"""What federated-learning frameworks hand over, known by its attributes: no framework is imported.

Flower: an `ArrayRecord`, `Parameters`, or what holds these, such as `FitRes`. NVFlare: an `FLModel`. All arrays are
numpy's own bytes or arrays, opened without pickle.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from gibench.errors import UsageError
from gibench.text import type_of

_NUMPY = "numpy.ndarray"  # how Flower calls arrays that `np.save` wrote
_KINDS = {"FULL": "weights", "DIFF": "delta"}  # NVFlare's names


def unwrapped(source: Any, what: str) -> Any:
    """The mapping or list of arrays in a framework's object; anything else as it is.

    Raises:
        UsageError: the object holds no arrays, or in another encoding than numpy's.
    """
    if hasattr(source, "params_type") and hasattr(source, "params"):
        if not isinstance(source.params, Mapping):
            held = type_of(source.params)
            raise UsageError(f"the {what} is an FLModel whose params are {held}: give them as a dict by name")
        return source.params
    if hasattr(source, "parameters") and hasattr(source.parameters, "tensors"):  # FitRes
        source = source.parameters
    if hasattr(source, "tensors") and hasattr(source, "tensor_type"):  # Parameters
        return [_array(part, source.tensor_type, f"entry {number}", what) for number, part in enumerate(source.tensors)]
    if isinstance(source, Mapping) and source and all(hasattr(each, "stype") for each in source.values()):
        return {name: _array(each.data, each.stype, str(name), what) for name, each in source.items()}
    return source


def kind_told(source: Any, kind: str) -> str:
    """The kind of update that the object itself states, or else the one that was told.

    Raises:
        UsageError: the two differ.
    """
    stated = _KINDS.get(getattr(getattr(source, "params_type", None), "value", ""))
    if stated and kind not in ("auto", stated):
        raise UsageError(f"the update is an FLModel of {stated} by its params_type, not a {kind}: leave out the kind")
    return stated or kind


def _array(data: bytes, encoding: str, name: str, what: str) -> Any:
    if encoding != _NUMPY:
        raise UsageError(f"the {what} holds '{encoding}' at '{name}', which is not read here: make it {_NUMPY}")
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy raises all sorts of things at bytes that are no array
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"the {what} holds no array at '{name}' ({cause}): send it as np.save writes it") from error
