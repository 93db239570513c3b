"""URIs of resources: one spelling each, and patterns that match what they seem to."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, ValidationError

from authz.core.resource_uris import is_pattern, is_strict_template, is_strict_uri, matches

SCHEMES = st.sampled_from(["file", "https", "http", "note", "x-y", "urn", "HTTP", "1a", ""])
PIECES = st.sampled_from([
    ":", "/", "//", "a", "B", ".", "..", "%2e", "%2E", "%2F", "%20", "%C3%A9", "%c3", "%25",
    "?", "#",
    "@", "example.com", "127.1", "127.0.0.1", "0x7f", ":443", ":80", ":8080", "[::1]",
    "[::0:1]", ";",
    "\\", " ", "\u00e9", "*", "~", "|", "{id}",
])  # fmt: skip
URIS = st.builds(
    lambda scheme, pieces: f"{scheme}:{''.join(pieces)}", SCHEMES, st.lists(PIECES, max_size=7)
)


STRICT = [
    "file:///a/b", "file:///", "file:///a%20b", "file:///%C3%A9", "note://welcome",
    "note://42/x?y=z",
    "note://a%20b", "https://example.com/", "https://example.com:8443/a", "https://127.0.0.1/a",
    "https://[::1]/a", "urn:isbn:1", "ui://app/main.html", "file:///a,b;c",
    "file:///.a/b.c", "note://a./b",
]  # fmt: skip
LOOSE = [
    "", "a", "/a", "x:", "x://", "File:///a", "file:/a", "file:a", "file://host/a",
    "file:///a/../b",
    "file:///a/./b", "file:///a//b", "file:///..", "file:///..;/b", "file:///;x/b",
    "file:///%2e%2e/b",
    "file:///%2E%2E/b", "file:///a%2Fb", "file:///a%5Cb", "file:///a%252e", "file:///%41",
    "file:///%c3%a9",
    "file:///%C3", "file:///%C0%AE", "file:///%EF%BC%8E", "file:///%00", "file:///%7F",
    "file:///a\\b",
    "file:///a b", "file:///\u00e9", "file:///a\n", "file:///a\x00", "file:///a#b",
    "file:///a?", "file:///a|b",
    "https://example.com", "https://Example.com/", "https://u@example.com/",
    "https://example.com:443/",
    "https://example.com:/", "https://example.com:080/", "https://example.com./", "https://127.1/",
    "https://0x7f.1/", "https://2130706433/", "https://[::0:1]/", "https://[::1/", "https:///a",
    "https://exam%70le.com/", "https:example.com/", "note://Welcome", "note://a@b",
    "file:///{x}", "x" * 40 + ":a", "file:///a./b", "file:///a%20/b", "file:///a.", "file:///a%20",
]  # fmt: skip


@pytest.mark.parametrize("text", STRICT)
def test_ordinary_uris_are_strict(text: str) -> None:
    """What servers name their resources."""
    assert is_strict_uri(text)
    assert is_strict_template(text)


@pytest.mark.parametrize("text", LOOSE)
@pytest.mark.attack("resources")
def test_other_spellings_are_not(text: str) -> None:
    """What some parser reads as another URI is refused rather than repaired."""
    assert not is_strict_uri(text)


@given(URIS)
def test_a_strict_uri_is_what_the_official_sdk_reads(text: str) -> None:
    """The SDK's own parser (pydantic, WHATWG) gives every strict URI back as it was."""
    if is_strict_uri(text):
        with suppress(ValidationError):  # what it does not take reaches no resource
            assert str(AnyUrl(text)) == text


@given(URIS, URIS)
def test_two_strict_uris_are_two_to_the_official_sdk(one: str, other: str) -> None:
    """No two texts that are compared as different lead to one thing."""
    if is_strict_uri(one) and one != other:
        try:
            same = str(AnyUrl(one)) == str(AnyUrl(other))
        except ValidationError:
            return
        assert not same or not is_strict_uri(other)


@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ("note://{name}", True), ("file:///{+path}", True), ("x://a/{id}{?q,r*}", True),
        ("x://a/{id:3}", True), ("x://{", False), ("x://{}", False), ("x://{a}/../b", False),
        ("{a}", False), ("{a}://b", False), ("x://{a b}", False),
    ],
)  # fmt: skip
def test_templates(text: str, strict: bool) -> None:
    """A template is as strict as a URI that is made of it."""
    assert is_strict_template(text) is strict


@pytest.mark.parametrize(
    "text",
    ["*", "note://*", "note:*", "https://*", "file:///*", "file:///public/*", "file:///a/*/b",
    "note://a*",
     "file:///*.txt", "https://example.com/*", "note://a/b"],
)  # fmt: skip
def test_patterns(text: str) -> None:
    """A strict URI with `*` behind the host, or at the end."""
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["", "**", "file:///**", "https://*.example.com/", "https://example.com*",
    "https://example.*/a", "f*:///a",
     "*:///a", "note://*/a", "file:///../*", "file:///%2a*", "file:///a#*", "file://*",
     "x://" + "a*b" * 5],
)  # fmt: skip
@pytest.mark.attack("resources")
def test_what_would_match_more_than_it_seems_is_no_pattern(text: str) -> None:
    """A wildcard within a host would match hosts of others."""
    assert not is_pattern(text)


@given(
    st.lists(st.sampled_from(["a", "/", "*", "?", "[", "]", "b", "."]), max_size=8).map("".join),
    st.data(),
)
def test_a_star_is_any_run_of_characters_and_all_else_is_itself(
    pattern: str, data: st.DataObject
) -> None:
    """Slashes too, and none; question marks and brackets are no wildcards."""
    plain = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    uri = data.draw(st.text(alphabet="ab/?[].", max_size=8) | st.just(pattern.replace("*", "b/")))
    assert matches(uri, pattern) is (plain.fullmatch(uri) is not None)


@given(URIS, st.sampled_from(["https://example.com/*", "file:///public/*", "note://a/*"]))
@pytest.mark.attack("resources")
def test_what_matches_begins_with_the_pattern_and_stays_there(uri: str, pattern: str) -> None:
    """A strict URI below a prefix has the prefix's host, and no segment leads out of it."""
    if is_strict_uri(uri) and matches(uri, pattern):
        assert uri.startswith(pattern.removesuffix("*"))
        assert not {".", ".."} & set(uri.split("/"))
