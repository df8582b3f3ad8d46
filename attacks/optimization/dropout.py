"""Dropout without its masks, however a network writes it: these are the client's secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_MASKS = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout),
    *(torch.dropout_, torch.feature_dropout_, torch.alpha_dropout_, torch.feature_alpha_dropout_),
}
_SHARES = {F.scaled_dot_product_attention: 4, F.multi_head_attention_forward: 10}  # which argument `dropout_p` is


class WithoutDropout(TorchFunctionMode):
    """While it is entered, dropout gives what it is given, as in eval mode; everything else is in the mode it is in."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MASKS:
            return args[0] if args else kwargs["input"]
        place = _SHARES.get(func)
        if place is not None and len(args) > place:
            args = (*args[:place], 0.0, *args[place + 1 :])
        elif place is not None:
            kwargs = kwargs | {"dropout_p": 0.0}
        return func(*args, **kwargs)
