"""A file of somebody else is read within limits, and what is no submission is refused with one line."""

import io
import struct
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibench.errors import UsageError
from gibench.submission import archive, content
from gibench.submission.archive import packed, unpacked

GOOD = {"manifest.json": b"{}", "rows.csv": b"cell\n"}


def zipped(members, **options):
    """A zip of pairs of names and contents, which may be anything."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as file:
        for name, text in members:
            file.writestr(name, text)
    return stream.getvalue()


def test_the_same_members_are_the_same_bytes_in_any_order():
    assert packed(GOOD) == packed(dict(reversed(GOOD.items())))


@given(st.dictionaries(st.sampled_from(["suite.yaml", "code.json", "images/0123456789abcdef.csv"]), st.binary()))
def test_what_is_packed_is_unpacked(tmp_path_factory, more):
    file = tmp_path_factory.mktemp("zip") / "file.zip"
    file.write_bytes(packed(GOOD | more))
    assert unpacked(file) == GOOD | more


NAMES = [
    "../rows.csv",
    "/etc/passwd",
    "images/../../x.csv",
    "images\\0123456789abcdef.csv",
    "images/0123456789ABCDEF.csv",
    "images/",
    "rows.csv\nx",
    "setup.py",
    "model.pkl",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_member_that_no_submission_has_is_refused(tmp_path, name):
    file = tmp_path / "file.zip"
    file.write_bytes(zipped([*GOOD.items(), (name, b"")]))
    with pytest.raises(UsageError, match=r"it has a member .*, which no submission has: give a file as gibench export"):
        unpacked(file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path):
    file = tmp_path / "file.zip"
    file.write_bytes(zipped([*GOOD.items(), ("rows.csv", b"other")]))
    with pytest.raises(UsageError, match=r"it has two members rows.csv"):
        unpacked(file)


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    file = tmp_path / "bomb.zip"
    file.write_bytes(zipped([*GOOD.items(), ("suite.yaml", bytes(10**6))], compression=zipfile.ZIP_DEFLATED))
    assert file.stat().st_size < 2000
    monkeypatch.setattr(archive.zipfile.ZipFile, "open", lambda *_: pytest.fail("it was read"))
    for limit, words in (("LARGEST_MEMBER", "suite.yaml has more than"), ("LARGEST_WHOLE", "unpacks to more than")):
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, 10**5)
            with pytest.raises(UsageError, match=words):
                unpacked(file)
    monkeypatch.setattr(archive, "LARGEST_FILE", 100)
    with pytest.raises(UsageError, match="larger than"):
        unpacked(file)


def test_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 3)
    file = tmp_path / "file.zip"
    file.write_bytes(zipped([*GOOD.items(), *((f"images/{number:016x}.csv", b"") for number in range(2))]))
    with pytest.raises(UsageError, match="more than 3 members"):
        unpacked(file)


def test_a_list_that_tells_less_than_is_there_gains_nothing(tmp_path):
    data = bytearray(zipped([*GOOD.items(), ("suite.yaml", bytes(10**6))], compression=zipfile.ZIP_DEFLATED))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the two places where a member's size stands
        place = data.rindex(signature)
        data[place + at : place + at + 4] = struct.pack("<L", 10)
    file = tmp_path / "file.zip"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot be read|another size"):
        unpacked(file)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(tmp_path, compression):
    file = tmp_path / "file.zip"
    file.write_bytes(zipped(GOOD.items(), compression=compression))
    with pytest.raises(UsageError, match="packed in an unusual way"):
        unpacked(file)


@pytest.mark.parametrize("left", ["manifest.json", "rows.csv"])
def test_what_lacks_a_part_is_refused(tmp_path, left):
    file = tmp_path / "file.zip"
    file.write_bytes(packed({name: text for name, text in GOOD.items() if name != left}))
    with pytest.raises(UsageError, match=f"it has no {left}"):
        unpacked(file)


def test_what_is_no_file_or_no_zip_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*: give one that gibench export wrote"):
        unpacked(tmp_path)
    (tmp_path / "file").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UsageError, match="cannot be read"):
        unpacked(tmp_path / "file")


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_or_read_and_nothing_else(honest_bytes, tmp_path_factory, place, value, cut):
    at = int(place * len(honest_bytes))
    file = tmp_path_factory.mktemp("damaged") / "file.zip"
    file.write_bytes(honest_bytes[:at] + (b"" if cut else bytes([value]) + honest_bytes[at + 1 :]))
    with suppress(UsageError):
        content.read(file)


@pytest.fixture(scope="module")
def honest_bytes(honest):
    return content.written(honest, "0.1.0")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("manifest.json", b"[" * 10**5, "manifest.json in .* cannot be read"),
        ("manifest.json", b'{"format": 2}', "has a wrong 'format'"),
        ("code.json", b'{"codes": [], "cells": {"a": 0}}', "names code that it has not"),
        ("rows.csv", b"\xff", "is no UTF-8"),
        ("rows.csv", b"cell\n1\n", "has other columns than rows have now"),
        ("costs.csv", b"utility\n1\n", "has other columns than rows have now"),
    ],
)
def test_a_part_that_is_none_is_one_clear_line(honest_bytes, tmp_path, name, text, words):
    file = tmp_path / "file.zip"
    file.write_bytes(honest_bytes)
    file.write_bytes(packed(unpacked(file) | {name: text}))
    with pytest.raises(UsageError, match=words):
        content.read(file)


@pytest.mark.parametrize("value", ["nan", "inf", "9" * 5000, "x" * 200_000, '"'])
def test_a_value_that_nobody_measured_is_one_clear_line(honest, honest_bytes, tmp_path, value):
    file = tmp_path / "file.zip"
    file.write_bytes(honest_bytes)
    members = unpacked(file)
    held = repr(honest.rows[0].psnr_mean)
    members["rows.csv"] = members["rows.csv"].replace(held.encode(), value.encode(), 1)
    file.write_bytes(packed(members))
    with pytest.raises(UsageError, match="is no row"):
        content.read(file)
