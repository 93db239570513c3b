"""What one address may send of each kind, through a real Envoy with a front door.

Whoever uses up one kind of an address stops none of the other kinds behind it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from tests.support.gateway import GOOD, Gateway, running_gateway
from tests.support.wild_client import WildAnswer

QUOTA = 3
_FIGURES = f"""\
  trusted_hops: 1
  address_rate: {QUOTA}/hour
  address_calls: {QUOTA}/hour
  address_bodies: 1/hour
"""
_DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"
FORM = b"grant_type=refresh_token"
LARGE = b"x" * 10_000


class Kind(NamedTuple):
    """A request of one kind, and how it is answered while there is room."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    status: int


KINDS = {
    "token": Kind("POST", "/files", (GOOD,), b"{}", 200),
    "oauth": Kind("POST", "/token", (), FORM, 200),
    "page": Kind("GET", "/authorize?client_id=x", (), None, 200),
    "other": Kind("POST", "/files", (), b"{}", 401),
}
SAME = [
    pytest.param("token", ("POST", "/notes", ("authorization", "Bearer made.up")), id="junk"),
    pytest.param("token", ("GET", "/files", GOOD), id="stream"),
    pytest.param("oauth", ("POST", "/revoke"), id="revoke"),
    pytest.param("page", ("POST", "/register"), id="register"),
    pytest.param("page", ("GET", "/authz/log-ins"), id="log-ins"),
    pytest.param("other", ("POST", "/notes", ("authorization", "Basic eA==")), id="basic"),
    pytest.param("other", ("GET", "/nowhere"), id="no route"),
    pytest.param("other", ("GET", "/nowhere", GOOD), id="no route, with a token"),
]


_networks = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Sender:
    """Ask from an address that nobody asked from before."""

    gateway: Gateway
    address: str

    def __call__(
        self, method: str, path: str, *headers: tuple[str, str], body: bytes | None = None
    ) -> WildAnswer:
        return self.gateway.send(
            method, path, ("X-Forwarded-For", self.address), *headers, body=body
        )

    def ask(self, kind: str) -> WildAnswer:
        """Send a request of a kind."""
        asked = KINDS[kind]
        return self(asked.method, asked.path, *asked.headers, body=asked.body)


@pytest.fixture(scope="module")
def tight() -> Iterator[Gateway]:
    """A gateway at which every kind of an address has three an hour."""
    with running_gateway(_DOOR, gateway=_FIGURES) as gateway:
        yield gateway


@pytest.fixture
def sender(tight: Gateway) -> Sender:
    return Sender(tight, f"198.51.100.{next(_networks)}")


@pytest.mark.attack("shared-address")
@pytest.mark.parametrize("loud", KINDS)
def test_a_kind_that_is_used_up_stops_no_other(sender: Sender, loud: str) -> None:
    """Junk without tokens, with made-up ones, at the token endpoint or at the pages: each is told
    to wait by itself.
    """
    answers = [sender.ask(loud).status for _ in range(QUOTA + 2)]

    assert answers == [KINDS[loud].status] * QUOTA + [429] * 2
    for kind, asked in KINDS.items():
        if kind != loud:
            assert sender.ask(kind).status == asked.status, kind


@pytest.mark.parametrize(("kind", "sent"), SAME)
def test_what_is_of_one_kind_shares_its_figure(
    sender: Sender, kind: str, sent: tuple[str, str, *tuple[tuple[str, str], ...]]
) -> None:
    """Another server, another endpoint and no route at all are no way around it."""
    method, path, *headers = sent
    for _ in range(QUOTA):
        sender(method, path, *headers, body=None if method == "GET" else b"{}")

    assert sender.ask(kind).status == 429


@pytest.mark.attack("shared-address")
def test_large_bodies_are_counted_where_they_are_waited_for(sender: Sender) -> None:
    """Without a token nobody waits for one, so that it takes nothing of those that have tokens; a
    large form takes nothing of them either.
    """
    without = sender("POST", "/files", body=LARGE)
    form = [sender("POST", "/token", body=LARGE).status for _ in range(2)]
    call = [sender("POST", "/files", GOOD, body=LARGE).status for _ in range(2)]

    assert without.status == 401
    assert form == [200, 429]
    assert call == [200, 429]
