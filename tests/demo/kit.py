"""What the demo's tests share: the recorded configuration, a clock to set, an OAuth client.

The client is written by hand, so that it hides nothing of what the stand-in answers.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz_demo.issuer import (
    CustomClaim,
    RegisteredClient,
    StandInConfig,
    StandInIssuer,
    User,
    create_app,
)
from authz_demo.issuer.run import forwarded_headers
from authz_demo.person import BrowserUser

ISSUER = "https://auth.example.test"
FILES, NOTES = "https://mcp.example.test/files", "https://mcp.example.test/notes"
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
RECORDED = Path(__file__).parents[1] / "fixtures" / "authelia"
JOHN = "52b134ec-d812-4022-82b4-9100df7e1418"
BOB = "4531f362-f96e-4719-9af2-64398982e5fd"
CLIENT_KEY = ec.generate_private_key(ec.SECP256R1())


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


@dataclass(slots=True)
class DemoClock:
    """Time stands still until a test sets it."""

    at: float = 1795380700.0

    def __call__(self) -> float:
        return self.at


def config(clock: Callable[[], float]) -> StandInConfig:
    """The clients of the recorded Authelia, under their own ids."""
    public = RegisteredClient(
        "",
        redirect_uris=("http://127.0.0.1/callback", "http://[::1]/callback"),
        scopes=("openid", "offline_access", "profile", "groups", "email", "mcp:tools", "mcp:admin"),
        audience=(FILES, NOTES),
        requested_audience_mode="implicit",
        access_token="RS256",
    )
    pem = CLIENT_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    keyed = RegisteredClient(
        "",
        redirect_uris=("http://127.0.0.1/callback",),
        scopes=("openid", "profile", "groups"),
        grant_types=("authorization_code",),
        token_endpoint_auth_method="private_key_jwt",
        public_key=pem.decode(),
    )
    groups = ("groups", "email", "preferred_username")
    return StandInConfig(
        ISSUER,
        users=(
            User(
                "john", "password", SECRET, JOHN, ("admins", "dev"), "john@example.test", "John Doe"
            ),
            User("bob", "password", SECRET, BOB, ("dev",), "bob@example.test", "Bob"),
        ),
        clients=(
            replace(public, client_id="mcp-2fa"),
            replace(
                public,
                client_id="mcp-1fa",
                authorization_policy="one_factor",
                requested_audience_mode="explicit",
            ),
            replace(public, client_id="localhoster", redirect_uris=("http://localhost/callback",)),
            replace(public, client_id="mcp-es256", access_token="ES256"),
            replace(public, client_id="mcp-opaque", access_token="opaque"),
            replace(public, client_id="mcp-groups", claims_policy=groups),
            replace(
                public,
                client_id="mcp-marker",
                scopes=(*public.scopes, "mcp:assurance"),
                claims_policy=("mcp_assurance",),
            ),
            replace(keyed, client_id="authz-stepup"),
            replace(keyed, client_id="authz-stepup-1fa", authorization_policy="one_factor"),
            RegisteredClient(
                "machine",
                scopes=("mcp:tools",),
                audience=(FILES,),
                requested_audience_mode="implicit",
                grant_types=("client_credentials",),
                token_endpoint_auth_method="client_secret_basic",
                client_secret="machine-secret",
                access_token="RS256",
            ),
            RegisteredClient(
                "introspector",
                grant_types=("client_credentials",),
                token_endpoint_auth_method="client_secret_basic",
                client_secret="introspector-secret",
            ),
            RegisteredClient(
                "poster",
                scopes=("mcp:tools",),
                grant_types=("client_credentials",),
                token_endpoint_auth_method="client_secret_post",
                client_secret="poster-secret",
            ),
        ),
        custom_claims=(CustomClaim("mcp_assurance", "mcp:assurance", "two_factor"),),
        clock=clock,
    )


@dataclass(slots=True)
class DemoWorld:
    """One stand-in, its clock, and browsers that reach it without a socket."""

    issuer: StandInIssuer
    clock: DemoClock
    runner: asyncio.Runner
    browsers: list[httpx.AsyncClient] = field(default_factory=list)

    def browser(self, address: str = "192.0.2.10") -> httpx.AsyncClient:
        headers = forwarded_headers(self.issuer.config) | {"X-Forwarded-For": address}
        browser = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(self.issuer)), base_url=ISSUER, headers=headers
        )
        self.browsers.append(browser)
        return browser

    def person(
        self,
        username: str = "john",
        totp_secret: str | None = SECRET,
        clock: Callable[[], float] | None = None,
        **knows: Any,
    ) -> BrowserUser:
        clock = clock or self.clock
        return BrowserUser(username, "password", totp_secret, clock=clock, **knows)

    def request(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """One request from a browser of its own."""
        address = sent.pop("address", "192.0.2.10")
        browser: httpx.AsyncClient = sent.pop("browser", None) or self.browser(address)
        return self.runner.run(browser.request(method, path, **sent))

    def close(self) -> None:
        for browser in self.browsers:
            self.runner.run(browser.aclose())


@dataclass(slots=True)
class App:
    """One client in one browser: logs in, exchanges, refreshes, introspects, revokes."""

    world: DemoWorld
    client_id: str = "mcp-2fa"
    redirect_uri: str = "http://127.0.0.1:43210/callback"
    address: str = "192.0.2.10"
    browser: httpx.AsyncClient = field(init=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    def __post_init__(self) -> None:
        self.browser = self.world.browser(self.address)

    @property
    def client(self) -> RegisteredClient:
        client = self.world.issuer.config.client(self.client_id)
        assert client is not None
        return client

    def parameters(self, **changes: Any) -> dict[str, Any]:
        """An authorization request; None leaves a parameter out."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest())
        parameters: dict[str, Any] = {
            "client_id": self.client_id,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "nonce": "n" * 12,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "scope": "openid mcp:tools",
            "state": "s" * 12,
        }
        return {name: v for name, v in (parameters | changes).items() if v is not None}

    def url(self, **changes: Any) -> str:
        query = urlencode(self.parameters(**changes), doseq=True)
        return f"{ISSUER}/api/oidc/authorization?{query}"

    def authorize(self, **changes: Any) -> httpx.Response:
        """The first answer to an authorization request, nothing followed."""
        return self.world.request("GET", self.url(**changes), browser=self.browser)

    def log_in(self, person: BrowserUser | None = None, **changes: Any) -> dict[str, str]:
        """Everything up to the callback: its parameters."""
        person = person or self.world.person()
        callback = self.world.runner.run(person.log_in(self.browser, self.url(**changes)))
        return dict(parse_qsl(urlsplit(callback).query, keep_blank_values=True))

    def assertion(self, **changes: Any) -> str:
        now = int(self.world.clock())
        claims = {
            "aud": ISSUER,
            "exp": now + 60,
            "iat": now,
            "iss": self.client_id,
            "jti": str(uuid.uuid4()),
            "sub": self.client_id,
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, CLIENT_KEY, algorithm="ES256")

    def proof(self) -> dict[str, Any]:
        """What authenticates this client."""
        client = self.client
        match client.token_endpoint_auth_method:
            case "client_secret_basic":
                return {"auth": (client.client_id, client.client_secret)}
            case "client_secret_post":
                secret = {"client_secret": client.client_secret}
                return {"data": {"client_id": client.client_id, **secret}}
            case "private_key_jwt":
                kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
                signed = {"client_assertion_type": kind, "client_assertion": self.assertion()}
                return {"data": {"client_id": client.client_id, **signed}}
            case _:
                return {"data": {"client_id": client.client_id}}

    def post(self, path: str, **parameters: Any) -> httpx.Response:
        sent = self.proof()
        data = sent.pop("data", {}) | {k: v for k, v in parameters.items() if v is not None}
        return self.world.request("POST", path, data=data, browser=self.browser, **sent)

    def exchange(self, code: str, **changes: Any) -> httpx.Response:
        parameters = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
        }
        return self.post("/api/oidc/token", **(parameters | changes))

    def tokens(self, person: BrowserUser | None = None, **changes: Any) -> dict[str, Any]:
        """A whole log-in: the members of the token answer."""
        answer = self.exchange(self.log_in(person, **changes)["code"])
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def refresh(self, token: str, **changes: Any) -> httpx.Response:
        return self.post(
            "/api/oidc/token", grant_type="refresh_token", refresh_token=token, **changes
        )

    def introspect(self, token: str, **changes: Any) -> httpx.Response:
        return self.post("/api/oidc/introspection", token=token, **changes)

    def active(self, token: str) -> bool:
        return bool(self.introspect(token).json()["active"])


def claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def query(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)
