"""Whether Authelia's introspection endpoint (RFC 7662) takes our client; the token is made up."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from authz.config.load import Settings
from authz.config.model import Config
from authz.doctor.finding import Finding, enumerated, note, ok, problem, warning
from authz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from authz.tokens.introspection_endpoint import IntrospectionEndpoint
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import IssuerError, IssuerFault, issuer_client

PART: Final = "issuer"
_PATIENCE: Final = 10.0
_SECRETS: Final[Mapping[str, Callable[[str, str], ClientAuth]]] = {
    "client_secret_basic": ClientSecretBasic,
    "client_secret_post": ClientSecretPost,
}


class IntrospectionClient:
    """Ask about tokens."""

    def __init__(self, endpoint: IntrospectionEndpoint) -> None:
        """Take the endpoint."""
        self._endpoint = endpoint

    async def ask(self, token: str) -> Mapping[str, object]:
        """Return what Authelia says of a token.

        Raises:
            IssuerError: where it gives no usable answer.
        """
        return await self._endpoint.ask(token)

    async def examine(self, settings: Settings) -> list[Finding]:
        """Ask about a token that nobody has."""
        configured = settings.config.issuer.introspection
        assert configured is not None
        findings = list(_slow(configured.auth))
        try:
            answer = await self.ask(_nobodys())
        except IssuerError as error:
            return [*findings, _refused(configured.client_id, error)]
        if answer.get("active") is not False:
            message = "introspection says that a token of nobody's is active"
            fix = "issuer.internal does not lead to Authelia"
            return [*findings, problem(PART, "introspection", message, fix)]
        findings.append(ok(PART, "introspection", "it answers our questions about tokens"))
        return [*findings, *_taken(settings.config)]


def unconfigured(config: Config) -> Iterator[Finding]:
    """Yield whose tokens may be refused because Authelia is asked about none."""
    clients = _clients(config)
    if clients and config.issuer.introspection is None:
        message = (
            f"opaque access tokens are refused, and Authelia gives {enumerated(clients)} such ones "
            "unless it is told to sign them: it is not asked about tokens"
        )
        fix = (
            "access_token_signed_response_alg: RS256 at each (`authz authelia-config` prints "
            "it), or issuer.introspection in authz.yaml"
        )
        yield note(PART, "no_introspection", message, fix)


def _taken(config: Config) -> Iterator[Finding]:
    """Yield the servers that take no opaque tokens although Authelia is asked about them."""
    clients = _clients(config)
    closed = [name for name in config.servers if "opaque" not in config.token_kinds(name)]
    if clients and closed:
        message = (
            f"{enumerated(closed)} take signed tokens alone: opaque ones of {enumerated(clients)} "
            "are refused there"
        )
        fix = (
            "servers.<server>.tokens: [jwt, opaque], or access_token_signed_response_alg: RS256 at "
            "the client"
        )
        yield note(PART, "opaque_refused", message, fix)


def _clients(config: Config) -> list[str]:
    """Return the configured clients that get their tokens at Authelia, machines among them."""
    return [name for name in config.named if config.login_of(name) == "direct"]


def _nobodys() -> str:
    return f"authelia_at_{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(32)}"


def _slow(auth: str) -> Iterator[Finding]:
    if auth in _SECRETS:
        yield warning(
            PART,
            "slow_client_secret",
            "Authelia hashes the client secret at every question, 280 ms of CPU by default",
            "issuer.introspection.auth: private_key_jwt, and `authz authelia-config --make-key`",
        )


def _refused(client_id: str, error: IssuerError) -> Finding:
    if error.fault is IssuerFault.UNAUTHORIZED:
        return problem(
            PART,
            "introspection_unauthorized",
            "Authelia does not know the key, or the secret, of issuer.introspection",
            f"the client {client_id} of `authz authelia-config` belongs into Authelia's "
            "configuration: its key, key_id and all four *_endpoint_auth_method",
        )
    message = f"it does not answer questions about tokens: {error.detail}"
    return problem(
        PART, "introspection", message, "look at issuer.introspection and Authelia's log"
    )


@asynccontextmanager
async def introspection_client(settings: Settings) -> AsyncIterator[IntrospectionClient | None]:
    """Yield who asks; None where introspection is not configured."""
    issuer, credential = settings.config.issuer, settings.secrets.introspection
    configured = issuer.introspection
    if configured is None or credential is None:
        yield None
        return
    secret = credential.get_secret_value()
    if configured.auth == "private_key_jwt":
        auth: ClientAuth = PrivateKeyJwt(
            configured.client_id, secret, issuer.url, configured.key_id
        )
    else:
        auth = _SECRETS[configured.auth](configured.client_id, secret)
    address = IssuerAddress(issuer.url, issuer.internal)
    async with issuer_client(timeout=_PATIENCE) as client:
        yield IntrospectionClient(IntrospectionEndpoint(address, auth, client, total=_PATIENCE))
