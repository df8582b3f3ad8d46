"""YAML is read as people mean it, and never hangs, crashes or makes more of a file than it looks like."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gibench.errors import UsageError
from gibench.sweep import document

TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], include_characters="\n\t"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def read(tmp_path):
    def write_and_read(text):
        file = tmp_path / "document.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return document.read(file, "the document")

    return write_and_read


fixed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@fixed
@given(VALUES)
def test_json_is_yaml(read, value):
    assert read(json.dumps(value, ensure_ascii=False)) == value


@fixed
@given(st.text() | st.text("[]{}&*!|>'\"%@`:,- \n<a0#?~") | st.binary())
def test_any_file_is_read_or_refused_in_one_line(read, text):
    assert len(complaint(read, text).splitlines()) <= 1


def complaint(read, text):
    try:
        json.dumps(read(text))
    except UsageError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30:45", "12:30:45"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+3", 3),
        ("1_000", "1_000"),
        ("1e-4", 1e-4),
        ("5.", 5.0),
        ("-.INF", float("-inf")),
        ("no", "no"),
        ("on", "on"),
        ("TRUE", True),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("~", None),
        ("'010'", "010"),
        ("!!str 010", "010"),
        ("!!float 1", 1.0),
        ("{one: &one {size: 1}, two: &two {<<: *one, size: 2}, three: {<<: *two}}",
         {"one": {"size": 1}, "two": {"size": 2}, "three": {"size": 2}}),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(read, text, value):
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def bomb(first, line, levels=9):
    """Each level is ten times the one before: a billion values in a few lines."""
    return f"l0: &l0 {first}\n" + "".join(
        f"l{level + 1}: &l{level + 1} {line.format(', '.join([f'*l{level}'] * 10))}\n" for level in range(levels)
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (bomb("[x]", "[{}]"), "holds more than 200000 values, aliases written out"),
        (bomb("{x: 1}", "{{<<: [{}]}}"), "holds more than 200000 values, aliases written out"),
        ("a: &a [*a]", "an alias lies within what it stands for"),
        ("a: &a {b: [{c: *a}]}", "an alias lies within what it stands for"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper than 20 levels"),
        ("a: " + "[" * 900 + "]" * 900, "nested deeper than 20 levels"),
        ("a: " + "{b: " * 900 + "}" * 900, "nested deeper than 20 levels"),
        ("a: " + "9" * 5000, "a number has too many digits"),
        ("a: !!int abc", "'abc' is no int"),
        ("a: !!bool maybe", "'maybe' is no bool"),
        ("a: !!timestamp 2026-99-99", "could not determine a constructor"),
        ("a: !!int [1]", "expected a scalar node"),
        ("a: !!map b", "expected a mapping node"),
        ("{a: 1, a: 2}", "the key 'a' stands twice"),
        ("[a]: 1", "unhashable key"),
        ("#" * (document.LARGEST + 1), "larger than 1 MB"),
        (b"\xff\xfea\x00", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(read, text, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        read(text)
    assert "\n" not in str(refusal.value)


def test_a_file_without_an_end_is_refused():
    with pytest.raises(UsageError, match="larger than 1 MB"):
        document.read(Path("/dev/zero"), "the document")
