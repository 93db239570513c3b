"""Which client an operator means: no block is written that stops nobody."""

import pytest

from authz.login.clients.identity import blocked_by
from authz.login.clients.operator_names import (
    AmbiguousClientError,
    ClientNames,
    UnknownClientError,
    called,
    spellings,
)
from authz.login.clients.redirects import place_of

KNOWN = [
    ClientNames("3f9a12bc44d0", "dyn.abc.def", "dynamic/evil.example"),
    ClientNames("3f0000000000", "https://claude.ai/oauth/client.json", "https://claude.ai"),
]
CONFIGURED = ("nightly-backup", "cursor")


@pytest.mark.parametrize(
    ("what", "meant"),
    [
        ("dynamic/evil.example", "dynamic/evil.example"),
        ("3F9A", "dyn.abc.def"),
        ("https://claude.ai/oauth/client.json", "https://claude.ai/oauth/client.json"),
        ("cursor", "cursor"),
        ("evil.example", "dynamic/evil.example"),
        ("Evil.Example", "dynamic/evil.example"),
        ("https://Evil.example/", "https://evil.example"),
        ("dynamic/Evil.example", "dynamic/evil.example"),
        ("dynamic/loopback", "dynamic/loopback"),
        ("dynamic/vscode", "dynamic/vscode"),
        ("dynamic/[2001:db8::1]", "dynamic/[2001:db8::1]"),
        ("dyn.never.seen", "dyn.never.seen"),
        ("https://new.example/client.json", "https://new.example/client.json"),
    ],
)
def test_what_is_meant(what: str, meant: str) -> None:
    """An id, a client_id, a name in any letter case, or a host alone; come or not."""
    assert called(what, KNOWN, CONFIGURED) == meant


@pytest.mark.parametrize(
    ("what", "near"),
    [
        ("vscode", "did you mean dynamic/vscode"),
        ("nightly-backups", "nightly-backup"),
        ("https://evil.example:8443", None),
        ("https://evil.example/a b", None),
        ("dynamic/evil example", "dynamic/evil.example"),
        ("dynamic/", None),
        ("dynamic/evil.example.", "dynamic/evil.example"),
        ("https://dynamic/evil.example", None),
        ("*", None),
    ],
)
def test_what_nobody_can_be_called(what: str, near: str | None) -> None:
    """It is refused with the forms, and with what is like it."""
    with pytest.raises(UnknownClientError, match="dynamic/HOST") as caught:
        called(what, KNOWN, CONFIGURED)
    assert (near or "give an id") in str(caught.value)


def test_several_ids() -> None:
    """The beginning of two ids is neither; one that is short finds nobody by chance."""
    known = [*KNOWN, ClientNames("3f9a00000000", "dyn.other", "dynamic/other.example")]
    with pytest.raises(AmbiguousClientError):
        called("3f9a", known, CONFIGURED)
    for what in ("3f9", ""):
        with pytest.raises(UnknownClientError):
            called(what, KNOWN[:1], CONFIGURED)


@pytest.mark.parametrize("uri", ["https://evil.example/cb", "http://127.0.0.1/", "cursor://x/y",
                                 "https://[2001:db8::1]/cb", "https://203.0.113.9/cb",
                                 "https://intranet/cb"])  # fmt: skip
def test_a_name_that_is_taken_stops_somebody(uri: str) -> None:
    """Every name that a log-in is looked for under can be typed, and is kept as it is."""
    place = place_of(uri)
    for name in blocked_by(f"dynamic/{place.removesuffix(':')}", place, "docs.example"):
        assert called(name, [], ()) == name


def test_one_host_in_every_spelling() -> None:
    """What was blocked in one spelling is found again in another."""
    assert "https://evil.example" in spellings("dynamic/evil.example")
    assert "dynamic/evil.example" in spellings("https://evil.example/")
    assert "https://evil.example" in spellings("evil.example")
    assert spellings("cursor") == ("cursor",)
