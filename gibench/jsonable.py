"""Any value as strict JSON holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

from gibench.text import storable


def jsonable(value: Any) -> Any:
    """The value made of JSON's own types, its text UTF-8.

    NaN and infinity become null, tensors and arrays lists, the rest text.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Set):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch, scalars included
        return jsonable(value.tolist())
    return storable(str(value))
