"""Text that is stored and sent is UTF-8."""

import os

from hypothesis import given
from hypothesis import strategies as st

from gibench.text import is_storable, storable


@given(st.text())
def test_text_stays_as_it_is(text):
    assert is_storable(text)
    assert storable(text) == text


@given(st.binary())
def test_every_file_name_becomes_text_and_says_whether_it_was(name):
    text = os.fsdecode(name)
    storable(text).encode()
    assert is_storable(text) == (name.decode(errors="ignore").encode() == name)


def test_what_is_no_utf8_is_written_out():
    assert storable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
