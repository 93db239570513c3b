"""URLs: one spelling each, and the advice leads to it."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config import urls
from authz.config.problems import WrongValueError
from authz.config.value_types import Notation

SHAPES = [urls.ISSUER, urls.INTERNAL, urls.GATEWAY, urls.RESOURCE, urls.UPSTREAM, urls.ORIGIN]
EVERY = [*SHAPES, urls.REDIRECT, urls.REDIS]


def complaint(notation: Notation, text: str) -> str:
    with pytest.raises(WrongValueError) as caught:
        notation.read(text)
    return f"{caught.value.wrong}; {caught.value.right}"


@pytest.mark.parametrize("notation", EVERY, ids=lambda notation: notation.example)
def test_examples(notation: Notation) -> None:
    """Every example is right."""
    assert notation.read(notation.example) == notation.example


@pytest.mark.parametrize(
    ("notation", "text"),
    [
        (urls.ISSUER, "https://example.com/authelia"),
        (urls.INTERNAL, "http://auth_elia:9091"),
        (urls.GATEWAY, "https://localhost:8443"),
        (urls.GATEWAY, "https://[::1]:8443"),
        (urls.RESOURCE, "https://mcp.example.com/a/b.c~d_e-f"),
        (urls.UPSTREAM, "http://files:8000/mcp/"),
        (urls.UPSTREAM, "http://files"),
        (urls.ORIGIN, "http://localhost:6274"),
        (urls.REDIRECT, "cursor://anysphere.cursor-mcp/oauth/callback"),
        (urls.REDIRECT, "http://127.0.0.1:8080/cb"),
        (urls.REDIRECT, "http://[::1]/cb"),
        (urls.REDIS, "redis://redis"),
        (urls.REDIS, "rediss://redis.example.com:6380/1"),
        (urls.REDIS, "unix:///run/valkey/valkey.sock"),
    ],
)
def test_accepted(notation: Notation, text: str) -> None:
    """What is right is taken as it stands."""
    assert notation.read(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://mcp.example.com/files/../notes",
        "https://mcp.example.com/./files",
        "https://mcp.example.com//files",
        "https://mcp.example.com/files/",
        "https://mcp.example.com/files?x=1",
        "https://mcp.example.com/files?",
        "https://mcp.example.com/files#",
        "https://mcp.example.com/%66iles",
        "https://mcp.example.com/files;v=1",
        "https://mcp.example.com/a\\b",
        "https://MCP.example.com/files",
        "https://mcp.example.com:443/files",
        "https://mcp.example.com:0/files",
        "https://mcp.example.com:/files",
        "https://mcp.example.com./files",
        "https://mcp..example.com/files",
        "https://me@mcp.example.com/files",
        "https:///files",
        "https:/mcp.example.com/files",
        "http://mcp.example.com/files",
        "HTTPS://mcp.example.com/files",
        "https://mcp.example.com/files ",
        "https://mcp.example.com/files\n",
        "https://mcp.example.com/fi\tles",
        "https://mcp.exämple.com/files",
        "https://mcp.example.com/ﬁles",
        "https://[::1/files",
        "https://[1::2::3]/files",
        "",
    ],
)
def test_resources_have_one_spelling(text: str) -> None:
    """A resource in any other spelling is refused: audiences are compared as strings."""
    assert complaint(urls.RESOURCE, text)


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "http://example.com/cb",
        "http://localhost.example.com/cb",
        "http://127.0.0.1.example.com/cb",
        "https://a/b#c",
        "//a/b",
        "https:",
        "https://a/b c",
        "JavaScript:alert(1)",
    ],
)
def test_no_redirects(text: str) -> None:
    """A redirect that runs code, leaks codes or has a fragment is refused."""
    assert complaint(urls.REDIRECT, text)


TEXTS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS", "ftp"]),
    st.sampled_from(["a.example.com", "A.example.com", "[::1]", "u:p@a", "a_b", "a.", "-"]),
    st.sampled_from(["", ":80", ":443", ":8443", ":0", ":99999", ":"]),
    st.lists(st.sampled_from(["/a", "/B", "/.", "/..", "/", "/%41", "/c;d", "/é"]), max_size=3).map(
        "".join
    ),
    st.sampled_from(["", "?", "?q=1", "#", "#f", "/"]),
)


@given(st.sampled_from(SHAPES), TEXTS)
def test_advice_is_right(notation: Notation, text: str) -> None:
    """What is accepted splits as everybody splits it; what is advised is accepted."""
    try:
        assert notation.read(text) == text
    except WrongValueError as error:
        advice = error.right.removeprefix("write for example ").removeprefix("write ")
        assert notation.read(advice) == advice
        return
    url, theirs = urls.split(text), urlsplit(text)
    assert (url.scheme, url.host.strip("[]"), url.path) == (
        theirs.scheme,
        theirs.hostname,
        theirs.path,
    )
    assert url.port == theirs.port or theirs.port is None


@pytest.mark.parametrize("notation", EVERY, ids=lambda notation: notation.example)
@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@host/x",
        "https://me:hun/ter2@host/x",
        "https://hunter2@host",
        "https://:12/hunter2@host",
        "redis://:hunter2@host",
        "redis://:hun#ter2@host",
        "http://a?hunter2@host",
        "https://hunter2?x@host",
        "https://hunter2#x@host",
        "unix://:hunter2@/run/x",
    ],
)
def test_passwords_are_not_repeated(notation: Notation, text: str) -> None:
    """What stands before the @ of a URL is never shown, in the problem or the advice."""
    if notation is urls.REDIRECT:
        return  # an operator's list of public addresses, for Authelia
    said = complaint(notation, text)

    assert "hunter2" not in said
    assert "ter2" not in said
