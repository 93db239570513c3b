"""The server of a request whose route names none: by host and path, where that is asked for."""

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.decision import BearerRequest, Deny, read
from authz.core.detail import Detail
from authz.core.policy import Policy
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from tests.support.values import policy, request, server

HOST = "mcp.example.com"
PLACES = MappingProxyType(
    {
        (HOST, "/files"): "files",
        (HOST, "/files/"): "files",
        (f"{HOST}:443", "/files"): "files",
        (f"{HOST}:443", "/files/"): "files",
        ("notes.example.com", "/"): "notes",
        ("gone.example.com", "/gone"): "gone",
    }
)


def rules(places: MappingProxyType[tuple[str, str], str] | None = PLACES) -> Policy:
    named = {name: replace(server(), name=name) for name in ("files", "notes")}
    return replace(policy(), servers=MappingProxyType(named), places=places)


def sent(
    authority: str, path: str, context: dict[str, str] | None = None, host: str | None = None
) -> HttpRequest:
    made = request(context=context or {}, path=path, host=host)
    return replace(made, host=authority)


def found(asked: HttpRequest, of: Policy | None = None) -> str | Reason:
    read_as = read(asked, rules() if of is None else of)
    return read_as.reason if isinstance(read_as, Deny) else read_as.server.name


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        (HOST, "/files", "files"),
        ("MCP.Example.COM", "/files", "files"),
        (f"{HOST}:443", "/files/", "files"),
        (HOST, "/files?x=1", "files"),
        ("notes.example.com", "/", "notes"),
    ],
)
def test_a_servers_url_is_found(host: str, path: str, expected: str) -> None:
    """Host in either case, with or without the scheme's port; path with or without a last slash."""
    assert found(sent(host, path)) == expected


@pytest.mark.attack("host-games")
@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "notes.example.com",
        f"{HOST}.",
        f"{HOST}:8443",
        f"{HOST}:0443",
        f"{HOST}:",
        f"user@{HOST}",
        f"{HOST}@evil.example",
        f"{HOST}, evil.example",
        f" {HOST}",
        f"{HOST}\t",
        f"{HOST}/files",
        f"{HOST}#",
        "mcp.example.com\u2024evil",
        "mcp.e\u017fample.com",
        "mcp.example.\u212aom",
    ],
)
def test_another_host_is_no_server(host: str) -> None:
    """A forged or oddly written Host finds no server, not even one with the same path."""
    assert found(sent(host, "/files")) is Reason.UNKNOWN_SERVER


@pytest.mark.attack("path-games")
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//files",
        "/files//",
        "/FILES",
        "/./files",
        "/x/../files",
        "/files/.",
        "/files/..",
        "/%66iles",
        "/files%2f",
        "/files%00",
        "/files;v=1",
        "/files;/",
        "/files#x",
        "/files\\",
        "/files/x",
        "/filesx",
        "files",
        "*",
        f"https://{HOST}/files",
        f"//{HOST}/files",
        "?/files",
    ],
)
def test_another_spelling_of_a_path_is_no_server(path: str) -> None:
    """Nothing is normalised: a data plane that routes by another reading gets a refusal."""
    assert found(sent(HOST, path)) is Reason.UNKNOWN_SERVER


def test_the_url_chooses_only_where_that_is_asked_for() -> None:
    """Without `places` a Host and path of a server find none."""
    asked = sent(HOST, "/files")
    off = rules(None)
    refused = read(asked, off)

    assert isinstance(refused, Deny)
    assert (refused.reason, refused.detail) == (Reason.UNKNOWN_SERVER, Detail.NO_SERVER_NAMED)
    refused = read(sent(HOST, "/other"), rules())
    assert isinstance(refused, Deny)
    assert refused.detail == Detail.NO_SERVER_AT_URL


@pytest.mark.attack("host-games")
@pytest.mark.parametrize("named", ["files", "notes", "gone", "", "FILES"])
@pytest.mark.parametrize("host", [HOST, "notes.example.com", "evil.example"])
@pytest.mark.parametrize("places", [PLACES, None])
def test_no_host_overrides_a_route_that_names_a_server(
    named: str, host: str, places: MappingProxyType[tuple[str, str], str] | None
) -> None:
    """What the route says counts alone, also where it names a server that does not exist."""
    expected = named if named in {"files", "notes"} else Reason.UNKNOWN_SERVER

    assert found(sent(host, "/files", {"server": named}), rules(places)) == expected


@pytest.mark.attack("host-games")
def test_a_second_host_is_no_server() -> None:
    """Beside `:authority` a plane may send Host on, of which the upstream could make another."""
    assert found(sent(HOST, "/files", host=HOST)) == "files"
    for other in ("evil.example", f"{HOST},evil.example", "MCP.example.com", ""):
        assert found(sent(HOST, "/files", host=other)) is Reason.UNKNOWN_SERVER


@pytest.mark.attack("host-games")
def test_a_place_of_no_server_is_no_server() -> None:
    """A mapping that outlived its server refuses."""
    assert found(sent("gone.example.com", "/gone")) is Reason.UNKNOWN_SERVER


@given(st.text(max_size=24), st.text(max_size=16))
@example(HOST.upper(), "/files")
def test_what_is_found_is_what_was_written(host: str, path: str) -> None:
    """Any host and path find a server only where they are one of its URLs, letters' case aside."""
    read_as = read(sent(host, path), rules())

    if isinstance(read_as, BearerRequest):
        written = (host.lower(), path.partition("?")[0])
        assert host.isascii()
        assert PLACES[written] == read_as.server.name
