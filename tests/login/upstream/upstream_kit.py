"""The stand-in with our two clients, and our OIDC client beside it; all without a socket."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.core.ledger import UnavailableError
from authz.login.protocol.values import UpstreamAuthorizationRequest, UpstreamError, UpstreamLogin
from authz.login.upstream.client import Authelia, OurClient
from authz.login.upstream.id_token import TokenResponseVerifier
from authz.tokens.claims import ClaimRules
from authz.tokens.client_auth import PrivateKeyJwt
from authz.tokens.issuer import IssuerAddress, IssuerKeys
from authz.tokens.jwk import DEFAULT_ALGORITHMS
from authz.tokens.keys import SigningKeys
from authz_demo.issuer import RegisteredClient, StandInConfig, create_app
from authz_demo.person import BrowserUser
from tests.demo.kit import CLIENT_KEY, FILES, ISSUER, NOTES, DemoWorld
from tests.tokens.test_client_auth import pem

INTERNAL: Final = "http://authelia:9091"
CALLBACK: Final = "https://mcp.example.test/authz/callback"
STEP_UP: Final = "https://mcp.example.test/authz/step-up/callback"
HOME: Final = "192.0.2.10"
SCOPES: Final = frozenset({"openid", "offline_access", "profile", "mcp:tools"})
NAMES: Final = {False: "authz-one-factor", True: "authz-two-factor"}

T = TypeVar("T")


def ours(config: StandInConfig) -> StandInConfig:
    """Register both of our clients, as `authz authelia-config` has it."""
    key = CLIENT_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    client = RegisteredClient(
        NAMES[True],
        redirect_uris=(CALLBACK, STEP_UP),
        scopes=(*sorted(SCOPES), "groups"),
        audience=(FILES, NOTES),
        token_endpoint_auth_method="private_key_jwt",
        public_key=key.decode(),
        access_token="RS256",
        id_token_claims=("preferred_username",),
        require_pushed=True,
    )
    one = replace(client, client_id=NAMES[False], authorization_policy="one_factor")
    return replace(config, clients=(*config.clients, client, one))


def asked(*, two_factor: bool = True, **changes: Any) -> UpstreamAuthorizationRequest:
    """A transaction with secrets of its own."""
    request = UpstreamAuthorizationRequest(
        two_factor,
        CALLBACK,
        SCOPES,
        FILES,
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
    )
    return replace(request, **changes)


def step_up(**changes: Any) -> UpstreamAuthorizationRequest:
    """A step-up: `openid` only, for no server."""
    scopes = frozenset({"openid"})
    return asked(**{"scopes": scopes, "resource": None, "redirect_uri": STEP_UP} | changes)


class StandInTransport(httpx.AsyncBaseTransport):
    """Reach the stand-in, and note what was sent."""

    def __init__(self, world: DemoWorld) -> None:
        self._inner = httpx.ASGITransport(create_app(world.issuer))
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        await asyncio.sleep(0)  # as a network does: others have their turn
        return await self._inner.handle_async_request(request)

    def paths(self) -> list[str]:
        return [request.url.path.rpartition("/")[2] for request in self.sent]


@dataclass
class UpstreamKit:
    """The stand-in, and our client of it."""

    world: DemoWorld
    authelia: Authelia
    transport: StandInTransport
    monotonic: list[float] = field(default_factory=lambda: [1000.0])

    def run(self, call: Any) -> Any:
        return self.world.runner.run(call)

    def push(self, request: UpstreamAuthorizationRequest, address: str = HOME) -> str:
        url: str = self.run(self.authelia.push(request, address))
        return url

    def callback(
        self, request: UpstreamAuthorizationRequest, person: BrowserUser | None = None, **knows: Any
    ) -> dict[str, str]:
        """Push, log in, come back: the parameters of the callback."""
        browser = knows.pop("browser", None) or self.world.browser()
        person = person or self.world.person(**knows)
        url = self.run(person.log_in(browser, self.push(request)))
        return dict(parse_qsl(urlsplit(url).query))

    def exchange(
        self, request: UpstreamAuthorizationRequest, code: str, address: str = HOME, **changes: Any
    ) -> UpstreamLogin:
        sent: dict[str, Any] = {
            "two_factor": request.two_factor,
            "verifier": request.verifier,
            "redirect_uri": request.redirect_uri,
            "nonce": request.nonce,
        } | changes
        found: UpstreamLogin = self.run(self.authelia.exchange(code=code, address=address, **sent))
        return found

    def log_in(
        self, request: UpstreamAuthorizationRequest | None = None, **knows: Any
    ) -> UpstreamLogin:
        request = asked() if request is None else request
        return self.exchange(request, self.callback(request, **knows)["code"])

    def refresh(
        self, logged_in: UpstreamLogin, address: str = HOME, **changes: Any
    ) -> UpstreamLogin:
        sent = {
            "two_factor": True,
            "refresh_token": logged_in.tokens.refresh_token,
            "subject": logged_in.identity.subject,
        } | changes
        found: UpstreamLogin = self.run(self.authelia.refresh(address=address, **sent))
        return found

    def revoke(self, token: str, *, two_factor: bool = True) -> None:
        self.run(self.authelia.revoke(two_factor=two_factor, token=token, address=HOME))


def client_of(client_id: str, world: DemoWorld) -> OurClient:
    auth = PrivateKeyJwt(client_id, pem(CLIENT_KEY), ISSUER, clock=world.clock)
    return OurClient(client_id, auth)


@contextmanager
def standing(world: DemoWorld, **options: Any) -> Iterator[UpstreamKit]:
    """Put our client beside the stand-in."""
    world.issuer.config = ours(world.issuer.config)
    transport = StandInTransport(world)
    client = httpx.AsyncClient(transport=transport)
    address = IssuerAddress(ISSUER, INTERNAL)
    keys = SigningKeys(IssuerKeys(address, DEFAULT_ALGORITHMS, client))
    proofs = TokenResponseVerifier(keys, ClaimRules(ISSUER, 10, 7200), clock=world.clock)
    monotonic = [1000.0]
    authelia = Authelia(
        address,
        client_of(NAMES[False], world),
        client_of(NAMES[True], world),
        proofs,
        client,
        clock=lambda: monotonic[0],
        **options,
    )
    yield UpstreamKit(world, authelia, transport, monotonic)
    world.runner.run(client.aclose())


def refused(call: Any) -> str:
    """Why a call was refused: Authelia's error, or the words of a fault."""
    try:
        call()
    except UpstreamError as error:
        return error.error
    except UnavailableError as fault:
        return f"{fault.dependency}: {fault.detail}"
    return "not refused"
