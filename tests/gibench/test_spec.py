"""The spec grammar: canonical texts go round, and what is no spec says so."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibench.errors import UsageError
from gibench.spec import Spec, format_chain, parse, parse_chain

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True)
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
VALUES = st.one_of(st.text(alphabet=",+:='\" \n\tab1é", max_size=8), st.text(max_size=8))
SPECS = st.builds(Spec.of, NAMES, st.dictionaries(KEYS, VALUES, max_size=4))


@given(SPECS)
def test_parsing_the_canonical_text_gives_the_same_spec(spec):
    assert parse(str(spec)) == spec


@given(SPECS)
def test_formatting_what_was_parsed_gives_the_same_text(spec):
    assert str(parse(str(spec))) == str(spec)


@given(st.lists(SPECS, min_size=1, max_size=4))
def test_a_chain_goes_round(specs):
    text = format_chain(specs)
    assert parse_chain(text) == tuple(specs)
    assert format_chain(parse_chain(text)) == text


@given(st.dictionaries(KEYS, VALUES, min_size=2, max_size=4), NAMES, st.randoms())
def test_the_order_of_settings_means_nothing(settings, name, random):
    shuffled = list(settings.items())
    random.shuffle(shuffled)
    assert str(Spec.of(name, dict(shuffled))) == str(Spec.of(name, settings))


@given(SPECS, SPECS)
def test_specs_inside_a_value_go_round(outer, inner):
    nested = Spec.of(outer.name, dict(outer.settings) | {"attack": str(inner)})
    assert parse(dict(parse(str(nested)).settings)["attack"]) == inner


@given(st.text(alphabet=string.printable, max_size=20))
def test_any_text_is_a_spec_or_a_usage_error_that_quotes_it(text):
    try:
        spec = parse(text)
    except UsageError as error:
        complaint = str(error)
        assert "'" in complaint
    else:
        assert parse(str(spec)) == spec


def test_a_quoted_value_holds_every_separator():
    assert parse("folder:path='a,b+c:d=e',resize=32") == Spec.of("folder", {"path": "a,b+c:d=e", "resize": "32"})


def test_a_quote_inside_a_quoted_value_is_doubled():
    assert dict(parse("folder:path='it''s'").settings) == {"path": "it's"}


def test_spaces_around_names_keys_and_values_mean_nothing():
    assert parse(" dp : noise_multiplier = 1e-4 , delta = 1e-6 ") == parse("dp:delta=1e-6,noise_multiplier=1e-4")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "starts with a name"),
        (":a=1", "starts with a name"),
        ("-dp", "starts with a name"),
        ("dp:", "write key=value"),
        ("dp:delta", "write key=value"),
        ("dp:=1", "write key=value"),
        ("dp:1a=1", "write key=value"),
        ("dp:a=1,", "write key=value"),
        ("dp:a=", "needs single quotes"),
        ("dp:a=b:c", "needs single quotes"),
        ("dp:a=b=c", "needs single quotes"),
        ("dp:a=1,a=2", "sets a twice"),
        ("dp:a='b", "unclosed single quote"),
        ("dp:a='b'c", "mixes quotes"),
    ],
)
def test_what_is_no_spec_is_refused_with_the_mend(text, complaint):
    with pytest.raises(UsageError, match=complaint):
        parse(text)


@pytest.mark.parametrize("text", ["", "dp+", "+dp", "none++dp"])
def test_a_gap_in_a_chain_is_refused(text):
    with pytest.raises(UsageError, match="starts with a name"):
        parse_chain(text)
