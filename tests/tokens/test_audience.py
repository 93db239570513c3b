"""Audiences against resources: strings, compared as strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.principal import names_resource
from tests.tokens.token_factory import unhurried

FILES = "https://mcp.example.test/files"


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        pytest.param((FILES,), True, id="equal"),
        pytest.param((f"{FILES}/",), True, id="one-trailing-slash"),
        pytest.param(("https://mcp.example.test/notes", FILES), True, id="one-of-several"),
        pytest.param((), False, id="empty"),
        pytest.param(("https://mcp.example.test/notes",), False, id="another-server"),
        pytest.param((f"{FILES}//",), False, id="two-trailing-slashes"),
        pytest.param((f"{FILES}/private",), False, id="longer-path"),
        pytest.param((f"{FILES}ystem",), False, id="longer-name"),
        pytest.param(("https://mcp.example.test/file",), False, id="shorter-name"),
        pytest.param(("https://mcp.example.test",), False, id="origin-only"),
        pytest.param((f"{FILES}/../notes",), False, id="dot-segments-away"),
        pytest.param(("https://mcp.example.test/notes/../files",), False, id="dot-segments-here"),
        pytest.param((f"{FILES}/.",), False, id="dot-segment"),
        pytest.param((f"{FILES}?x=1",), False, id="query"),
        pytest.param((f"{FILES}?",), False, id="empty-query"),
        pytest.param((f"{FILES}#x",), False, id="fragment"),
        pytest.param(("https://MCP.example.test/files",), False, id="upper-case-host"),
        pytest.param(("HTTPS://mcp.example.test/files",), False, id="upper-case-scheme"),
        pytest.param(("https://mcp.example.test/Files",), False, id="upper-case-path"),
        pytest.param(("https://mcp.example.test:443/files",), False, id="default-port"),
        pytest.param(("https://mcp.example.test./files",), False, id="trailing-dot-host"),
        pytest.param(("https://mcp.example.test/%66iles",), False, id="percent-encoded"),
        pytest.param(("https://mcp.example.test/ﬁles",), False, id="ligature"),
        pytest.param((f" {FILES}",), False, id="blank-before"),
        pytest.param((f"{FILES}\n",), False, id="newline-after"),
        pytest.param(("http://mcp.example.test/files",), False, id="other-scheme"),
    ],
)
@pytest.mark.attack("aud-not-this-server")
def test_an_audience_is_this_server_only_as_an_equal_string(
    audience: tuple[str, ...], expected: bool
) -> None:
    """An audience names a server if an entry is its URL, with one slash behind it at most."""
    assert expected is names_resource(audience, FILES)


def test_no_second_slash_is_tolerated_on_a_resource_that_ends_in_one() -> None:
    """A resource with its own trailing slash is matched by itself only."""
    root = "https://mcp.example.test/"

    assert names_resource((root,), root)
    assert not names_resource((f"{root}/",), root)
    assert not names_resource(("https://mcp.example.test",), root)


@unhurried
@given(st.lists(st.text()).map(tuple), st.text(min_size=1))
def test_whatever_is_named_is_the_resource_or_the_resource_and_a_slash(
    audience: tuple[str, ...], resource: str
) -> None:
    """No audience without the resource, or it and one slash, names it."""
    named = names_resource(audience, resource)

    assert not named or {resource, f"{resource}/"} & set(audience)
