"""Settings reach a plugin as text, are validated, and come back as text."""

from enum import Enum
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from gibench.errors import UsageError
from gibench.plugin import Plugin


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(Plugin):
    """A setting of each type that specs can hold."""

    count: int = Field(3, ge=1, le=10, description="a number")
    rate: float = Field(0.1, ge=0, description="a share")
    fast: bool = Field(False, description="a flag")
    mode: Literal["sphere", "paper"] = Field("sphere", description="a choice")
    colour: Colour = Field(Colour.RED, description="an enumeration")
    limit: int | None = Field(None, description="a number, or none")
    path: str = Field("", description="a text")


def build(**settings):
    return Everything.from_settings("attack 'everything'", settings)


def test_texts_become_typed_values():
    plugin = build(count="7", rate="1e-4", fast="true", mode="paper", colour="blue", limit="5", path="none")
    assert plugin.model_dump() == {
        "count": 7, "rate": 1e-4, "fast": True, "mode": "paper", "colour": Colour.BLUE, "limit": 5, "path": "none",
    }  # fmt: skip


def test_none_is_written_as_text_where_it_is_the_default():
    assert build(limit="none").limit is None


@given(
    st.builds(
        Everything,
        count=st.integers(1, 10),
        rate=st.floats(0, allow_nan=False, allow_infinity=False),
        fast=st.booleans(),
        mode=st.sampled_from(["sphere", "paper"]),
        colour=st.sampled_from(Colour),
        limit=st.none() | st.integers(),
        path=st.text(max_size=9),
    )
)
def test_settings_as_text_build_the_same_plugin(plugin):
    assert build(**plugin.settings()) == plugin


def test_settings_hold_the_defaults_too():
    assert set(build().settings()) == set(Everything.model_fields)


def test_an_unknown_setting_says_which_exist():
    with pytest.raises(UsageError, match=r"attack 'everything' has no setting 'speed': it has colour, count, fast"):
        build(speed="1")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"count": "0"}, "count='0' is refused: .*greater than or equal to 1"),
        ({"count": "1.5"}, "count='1.5' is refused"),
        ({"rate": "nan"}, "rate='nan' is refused: .*finite"),
        ({"rate": "inf"}, "rate='inf' is refused: .*finite"),
        ({"mode": "cube"}, "mode='cube' is refused: .*'sphere' or 'paper'"),
        ({"fast": "maybe"}, "fast='maybe' is refused"),
    ],
)
def test_a_value_out_of_range_says_what_is_allowed(settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        build(**settings)


def test_several_mistakes_are_told_in_one_line():
    with pytest.raises(UsageError) as refusal:
        build(count="0", speed="1")
    assert "count='0'" in str(refusal.value)
    assert "'speed'" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_built_plugin_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        build().count = 4


class Picky(Plugin):
    """Its checks raise what pydantic does not take for a refusal."""

    what: str = "RuntimeError"

    @field_validator("what")
    @classmethod
    def _raise(cls, what):
        raise {"RuntimeError": RuntimeError, "OSError": OSError, "OverflowError": OverflowError}[what](f"no\n{what}")


@pytest.mark.parametrize("what", ["RuntimeError", "OSError", "OverflowError"])
def test_whatever_a_check_raises_refuses_the_settings(what):
    with pytest.raises(UsageError, match=rf"^attack 'picky': its settings are refused: no {what}$"):
        Picky.from_settings("attack 'picky'", {"what": what})


def test_a_long_value_that_is_refused_is_shortened():
    with pytest.raises(UsageError, match=r"count='9+ \.\.\. 4\d\d\d characters \.\.\. 9+' is refused") as refusal:
        build(count="9" * 5000)
    assert len(str(refusal.value)) < 500
