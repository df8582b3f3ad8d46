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

from gibench.jsonable import DEEPEST, LEFT_OUT, MOST_CHARACTERS, MOST_KEYS, MOST_VALUES, array_of, jsonable
from gibench.text import LONGEST

ANY_TEXT = st.text() | st.binary().map(os.fsdecode)  # lone surrogates too, as in file names that are no UTF-8
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT | st.integers(), inner),
    max_leaves=20,
)

FLAT = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(VALUES)
def test_every_value_becomes_strict_json_and_stays_the_same(value):
    plain = jsonable(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert jsonable(plain) == plain
    json.dumps(plain, ensure_ascii=False).encode()  # strict UTF-8


@given(st.lists(st.tuples(st.text(min_size=1, max_size=3), st.integers(1, 30_000)), max_size=80))
def test_what_went_from_process_to_process_is_cut_once(texts):
    """Long texts and keys, also more of them than are kept."""
    plain = jsonable([{text * times: text * times} for text, times in texts])
    assert jsonable(plain) == plain


@given(
    st.lists(
        st.dictionaries(
            st.text(),
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        )
    )
)
def test_an_array_of_objects_is_written_as_ever(objects):
    assert array_of(objects) == json.dumps(objects, indent=2)


def test_an_array_holds_no_infinity():
    with pytest.raises(ValueError, match="not JSON compliant"):
        array_of([{"psnr": math.inf}])


def size(plain):
    if isinstance(plain, dict | list):
        inner = plain.values() if isinstance(plain, dict) else plain
        return 1 + sum(map(size, inner))
    return 1


def depth(plain):
    inner = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    return 1 + max(map(depth, inner), default=0)


@given(st.lists(st.sampled_from(["list", "mapping", "wide", "again"]), max_size=60), st.integers(0, 3))
def test_a_value_of_any_depth_width_and_knots_is_bounded(steps, width):
    value, before = 1.0, None
    for step in steps:
        inside = [value] * (1 + width)
        if step == "again" and isinstance(before, list):
            before.append(value)  # a knot, or a part of several
        value, before = ({"a": value, "b": inside} if step == "mapping" else inside), value
        if step == "wide":
            value = [value, *range(5000)]
    plain = jsonable(value)
    json.dumps(plain, allow_nan=False)
    assert size(plain) <= MOST_VALUES + 2 * DEEPEST
    assert depth(plain) <= DEEPEST + 1


@given(st.integers())
def test_whole_numbers_of_64_bits_stay_and_larger_ones_are_floats_or_null(number):
    for each in (number, number * 2**63, number * 10**400, -number * 10**5000):
        plain = jsonable(each)
        if -(2**63) <= each < 2**63:
            assert plain == each
        else:
            assert plain is None or (isinstance(plain, float) and plain == pytest.approx(float(each)))


def test_of_too_many_keys_the_first_stay_with_a_word_on_the_others():
    plain = jsonable({"a": {number: number for number in range(MOST_KEYS)}, "b": 1})
    assert plain["a"] == {**{str(number): number for number in range(MOST_KEYS - 1)}, LEFT_OUT: "more keys"}
    assert plain[LEFT_OUT] == "more keys"
    assert "b" not in plain


def test_of_a_long_text_both_ends_stay():
    plain = jsonable("a" * LONGEST + "b" * LONGEST)
    assert plain.startswith("aaa")
    assert plain.endswith("bbb")
    assert f" ... {LONGEST} characters ... " in plain
    assert len(plain) == LONGEST
    texts = jsonable(["a" * LONGEST] * (MOST_CHARACTERS // LONGEST) + ["b" * 10])
    assert texts[0] == "a" * LONGEST
    assert "b" not in texts[-1]


def test_a_value_that_lies_in_itself_ends_there():
    knot = {"number": 1.5}
    knot["again"] = [knot, 2]
    assert jsonable(knot) == {"number": 1.5, "again": [f"{LEFT_OUT} circular", 2]}
    same = [1]
    assert jsonable([same, same]) == [[1], [1]]


def test_a_large_tensor_is_told_by_its_shape():
    assert jsonable({"big": torch.zeros(300, 300)}) == {"big": f"{LEFT_OUT} Tensor of shape [300, 300]"}


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
