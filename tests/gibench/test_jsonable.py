"""Whatever an attack reports becomes strict JSON."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibench.jsonable import jsonable

ANY_TEXT = st.text() | st.binary().map(os.fsdecode)  # lone surrogates too, as in file names that are no UTF-8
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT | st.integers(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_becomes_strict_json_and_stays_the_same(value):
    plain = jsonable(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert jsonable(plain) == plain
    json.dumps(plain, ensure_ascii=False).encode()  # strict UTF-8


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, np.float32("nan"), torch.tensor(math.inf)])
def test_what_is_no_number_is_null(number):
    assert jsonable(number) is None


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.tensor([[1.0, math.nan]]), [[1.0, None]]),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float64(0.5), 0.5),
        (torch.tensor(2, device="cpu"), 2),
        ((1, {"a": {2}}), [1, {"a": [2]}]),
        ({1: "x"}, {"1": "x"}),
        (Path("a/b"), "a/b"),
    ],
)
def test_tensors_arrays_and_others_become_plain(value, plain):
    assert jsonable(value) == plain
    assert type(jsonable(value)) is type(plain)
