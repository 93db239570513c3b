"""Opaque tokens of the stand-in issuer, which answers as the recorded Authelia does."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.tokens.claims import ClaimRules
from authz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from authz.tokens.introspection_cache import IntrospectionCache, LookUpEvent
from authz.tokens.introspection_endpoint import IntrospectionEndpoint
from authz.tokens.introspector import Introspector
from authz.tokens.issuer import IssuerAddress, IssuerKeys
from authz.tokens.jwk import DEFAULT_ALGORITHMS
from authz.tokens.keys import SigningKeys
from authz.tokens.verifier import TokenVerifier
from authz_demo.issuer import StandInIssuer, create_app
from tests.demo.kit import CLIENT_KEY, FILES, ISSUER, JOHN, NOTES, App, DemoClock, DemoWorld, config
from tests.tokens.opaque import UNAVAILABLE
from tests.tokens.test_client_auth import pem
from tests.tokens.token_factory import outcome_of

INTERNAL = "http://authelia:9091"
STRANGER = pem(ec.generate_private_key(ec.SECP256R1()))
RULES = ClaimRules(ISSUER, leeway=10, max_lifetime=7200)


@dataclass
class IntrospectionKit:
    """The stand-in, and a verifier that reaches it without a socket."""

    world: DemoWorld
    auth: ClientAuth
    client: httpx.AsyncClient
    verifier: TokenVerifier = field(init=False)
    reports: list[LookUpEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        address = IssuerAddress(ISSUER, INTERNAL)
        endpoint = IntrospectionEndpoint(address, self.auth, self.client, total=5.0)
        keys = SigningKeys(IssuerKeys(address, DEFAULT_ALGORITHMS, self.client))
        clock = self.world.clock
        lookups = IntrospectionCache(endpoint, RULES, observer=self.reports.append, clock=clock)
        introspector = Introspector(lookups, clock=clock)
        self.verifier = TokenVerifier(keys, RULES, introspector=introspector, clock=clock)

    def verify(self, token: str) -> Principal | Reason | str:
        return self.world.runner.run(outcome_of(self.verifier.verify(token)))

    def confirm(self, token: str, known: Principal) -> Principal | Reason | str:
        since = self.world.clock()
        return self.world.runner.run(outcome_of(self.verifier.confirm(token, known, since)))

    def login(self, client_id: str, scope: str = "openid offline_access mcp:tools") -> Any:
        app = App(self.world, client_id)
        return app, app.tokens(scope=scope)


def keyed(issuer: str = ISSUER) -> PrivateKeyJwt:
    return PrivateKeyJwt("authz-stepup", pem(CLIENT_KEY), issuer, clock=DemoClock())


@pytest.fixture
def world() -> Iterator[DemoWorld]:
    clock = DemoClock()
    with asyncio.Runner() as runner:
        world = DemoWorld(StandInIssuer(config(clock)), clock, runner)
        yield world
        world.close()


@pytest.fixture
def stand(world: DemoWorld) -> Iterator[IntrospectionKit]:
    yield from standing(world, keyed())


def standing(world: DemoWorld, auth: ClientAuth) -> Iterator[IntrospectionKit]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(world.issuer)))
    yield IntrospectionKit(world, auth, client)
    world.runner.run(client.aclose())


def test_an_opaque_token_is_its_person(stand: IntrospectionKit) -> None:
    """A log-in of a client with opaque tokens gives a token that stands for the person."""
    _, tokens = stand.login("mcp-opaque")

    found = stand.verify(tokens["access_token"])

    assert isinstance(found, Principal)
    assert (found.subject, found.client_id, found.opaque) == (JOHN, "mcp-opaque", True)
    assert found.audience == (FILES, NOTES)


@pytest.mark.attack("refresh-token-as-bearer")
def test_its_refresh_token_is_none(stand: IntrospectionKit) -> None:
    """The stand-in calls a refresh token active, as Authelia does; it is never asked."""
    app, tokens = stand.login("mcp-opaque")

    assert app.active(tokens["refresh_token"])
    assert stand.verify(tokens["refresh_token"]) is Reason.TOKEN_WRONG_KIND
    assert stand.reports == []


@pytest.mark.parametrize("client_id", ["mcp-2fa", "mcp-es256", "mcp-opaque"])
@pytest.mark.attack("introspection-revoked")
def test_a_refresh_ends_the_old_token_at_once(stand: IntrospectionKit, client_id: str) -> None:
    """Where tokens are confirmed, a refreshed one is refused, and the new one is good."""
    app, tokens = stand.login(client_id)
    found = stand.verify(tokens["access_token"])
    assert isinstance(found, Principal)
    assert isinstance(stand.confirm(tokens["access_token"], found), Principal)

    stand.world.clock.at += 2
    new = app.refresh(tokens["refresh_token"]).json()

    assert stand.confirm(tokens["access_token"], found) is Reason.TOKEN_REVOKED
    assert isinstance(stand.verify(new["access_token"]), Principal)


@pytest.mark.attack("introspection-revoked")
def test_a_refresh_token_used_twice_ends_the_family(stand: IntrospectionKit) -> None:
    """A stolen refresh token that is used again takes all access tokens of the log-in with it."""
    app, tokens = stand.login("mcp-opaque")
    new = app.refresh(tokens["refresh_token"]).json()["access_token"]
    found = stand.verify(new)
    assert isinstance(found, Principal)
    app.refresh(tokens["refresh_token"])
    stand.world.clock.at += 1

    assert stand.confirm(new, found) is Reason.TOKEN_REVOKED


def test_a_machine_is_confirmed_as_a_machine(stand: IntrospectionKit) -> None:
    """A token without a person stays one, in both ways of knowing it."""
    machine = App(stand.world, "machine")
    answer = machine.post("/api/oidc/token", grant_type="client_credentials", scope="mcp:tools")
    token = answer.json()["access_token"]
    found = stand.verify(token)

    assert isinstance(found, Principal)
    assert found.subject is None
    assert isinstance(stand.confirm(token, found), Principal)


@pytest.mark.parametrize(
    ("auth", "good"),
    [
        (keyed(), True),
        (keyed(f"{ISSUER}/api/oidc/token"), True),
        (keyed(f"{ISSUER}/api/oidc/introspection"), False),
        (
            PrivateKeyJwt("authz-stepup", pem(ec.generate_private_key(ec.SECP256R1())), ISSUER),
            False,
        ),
        (ClientSecretBasic("introspector", "introspector-secret"), True),
        (ClientSecretBasic("introspector", "wrong"), False),
        (ClientSecretPost("introspector", "introspector-secret"), False),
        (ClientSecretPost("poster", "poster-secret"), True),
    ],
)
def test_each_way_to_authenticate(world: DemoWorld, auth: ClientAuth, good: bool) -> None:
    """What the issuer takes from its registered client works; all else is a 503, never a 401."""
    for stand in standing(world, auth):
        _, tokens = stand.login("mcp-opaque")
        found = stand.verify(tokens["access_token"])

        assert isinstance(found, Principal) if good else found == UNAVAILABLE
