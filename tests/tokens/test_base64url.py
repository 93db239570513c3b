"""Base64url: one spelling for every octet string."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.tokens import base64url
from tests.tokens.token_factory import unhurried


@unhurried
@given(st.binary(max_size=200))
def test_what_is_encoded_decodes_to_itself(octets: bytes) -> None:
    """Decoding undoes encoding."""
    assert octets == base64url.decode(base64url.encode(octets))


@unhurried
@given(st.text(alphabet="AQgwBCx-_+/= \n\té", max_size=12) | st.text(max_size=8))
def test_what_decodes_is_spelled_as_it_would_be_encoded(text: str) -> None:
    """A text decodes only if it is the spelling of its octets; the only error is ValueError."""
    try:
        octets = base64url.decode(text)
    except ValueError:
        return

    assert text == base64url.encode(octets)


@pytest.mark.parametrize(
    "text",
    ["A", "AA=", "AA==", "AB", "AAB", "A A", "AA\n", "A+AA", "A/AA", "ÄAAA", "AA\x00A", "AAAA="],
    ids=repr,
)
def test_a_second_spelling_is_an_error(text: str) -> None:
    """Padding, foreign characters, blanks and unused bits are no base64url here."""
    with pytest.raises(ValueError, match=r"base64url|ascii"):
        base64url.decode(text)
