"""Text that is stored and sent is UTF-8; text that is shown commands nothing."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibench.leaderboard.formats import markdown_table
from gibench.text import code, is_storable, one_line, prose, shortened, storable, text_of, type_of, visible

MARKED = st.text("`|\\\\<>[]()*_#&!~:/@.w \n\x1b\u202eab", max_size=30)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_text_stays_as_it_is(text):
    assert is_storable(text)
    assert storable(text) == text


@given(st.binary().filter(lambda name: b"\0" not in name))
def test_every_file_name_becomes_text_and_says_whether_it_was(name):
    text = os.fsdecode(name)
    storable(text).encode()
    assert is_storable(text) == (name.decode(errors="ignore").encode() == name)


def test_what_is_no_utf8_is_written_out():
    assert storable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
    assert storable("a\0b") == r"a\x00b"


@given(st.text() | st.text("ab", max_size=300), st.integers(0, 100))
def test_a_text_is_shortened_in_its_middle(text, longest):
    found = shortened(text, longest)
    assert len(found) <= longest or found == text
    if len(text) <= longest:
        assert found == text
    elif longest > 60:
        assert found[:5] == text[:5]
        assert found[-5:] == text[-5:]
        assert f" ... {len(text) - longest} characters ... " in found


@given(st.text() | st.binary().map(os.fsdecode) | st.text("ab\0", max_size=300), st.integers(0, 100))
def test_a_text_that_was_cut_is_cut_no_further(text, longest):
    found = text_of(text, longest)
    assert text_of(found, longest) == found
    assert is_storable(found)


@pytest.mark.parametrize(("value", "name"), [(3, "an int"), ("", "a str"), ([], "a list"), (OSError(), "an OSError")])
def test_what_a_value_is_is_said_with_its_article(value, name):
    assert type_of(value) == name


@given(st.text() | st.binary().map(os.fsdecode))
def test_what_is_shown_is_one_line_of_what_can_be_seen(text):
    assert visible(text).isprintable()
    if text.isprintable():
        assert visible(text) == text
    assert "\n" not in one_line(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\a", r"\x1b[31mred\x07"),
        ("a\u202eb\u2066c\u200d", r"a\u202eb\u2066c\u200d"),
        ("two\r\nlines", r"two\r\nlines"),
        ("\udcff", r"\udcff"),
        ("C:\\folder é 写真", "C:\\folder é 写真"),
    ],
)
def test_what_a_terminal_obeys_or_nobody_sees_is_written_out(text, shown):
    assert visible(text) == shown


def spans(line):
    """The contents of a line that is code spans alone, read as CommonMark does: between equal runs of backticks."""
    match = re.fullmatch(r"(`+)(?!`)(.*)(?<!`)\1", line)
    assert match
    assert len(match[1]) not in map(len, re.findall("`+", match[2]))
    inside = match[2]
    padded = inside[:1] == inside[-1:] == " " and inside.strip()
    return inside[1:-1] if padded else inside


@given(MARKED.filter(bool))
def test_a_code_span_holds_the_text_and_nothing_else(text):
    assert spans(code(text)) == visible(text).replace(r"\|", r"\x7c")


@given(st.lists(st.lists(MARKED, min_size=3, max_size=3), min_size=1, max_size=3))
def test_no_text_breaks_a_table_of_markdown(body):
    lines = markdown_table(["a", "b", "c"], [[code(text) for text in line] for line in body]).split("\n")
    assert len(lines) == 2 + len(body)
    for line, texts in zip(lines[2:], body, strict=True):
        cells = re.split(r"(?<!\\)\|", line)  # a pipe behind a backslash is no border, and code has no such backslash
        assert [cell.strip().replace(r"\|", "|") for cell in cells[1:-1]] == [code(text).strip() for text in texts]


@given(MARKED)
def test_prose_is_the_text_alone_or_code(text):
    found = prose(text)
    assert found == code(text) or (found == text and not set(text) & set("`|<>[]*_#&!~/@\\") and "www." not in text)


@pytest.mark.parametrize("text", ["300 iterations", "AMD EPYC (1 threads)", "NaN in the gradient (seed 1, 2)", ""])
def test_prose_without_markup_stays_as_it_is(text):
    assert prose(text) == text


class Mute:
    def __str__(self):
        raise KeyError("no text")


class Leaves:
    def __str__(self):
        raise SystemExit(0)


def test_everything_has_a_text():
    assert text_of(Mute()) == "Mute without a text (KeyError)"
    assert text_of(Leaves()) == "Leaves without a text (SystemExit)"
    assert len(text_of("a" * 10**6)) < 11_000
