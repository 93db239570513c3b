"""Authelia behind the front door: its OpenID provider, asked as one of our two clients.

Invariant: nothing is sent that cannot succeed, everything is sent in the name of the person's own
address, and nothing that comes back is handed on before it was verified.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlencode

import httpx

from authz.core.ledger import UnavailableError
from authz.login.protocol.pkce import s256_challenge
from authz.login.protocol.values import (
    OPAQUE_TOKEN,
    UpstreamAuthorizationRequest,
    UpstreamError,
    UpstreamLogin,
    UpstreamTokens,
)
from authz.login.upstream.id_token import (
    ExpectedTokens,
    InvalidTokenResponseError,
    TokenResponseVerifier,
)
from authz.login.upstream.limits import ConcurrencyLimit, Lockouts
from authz.login.upstream.transport import UpstreamRateLimitedError, send
from authz.tokens.client_auth import ClientAuth
from authz.tokens.issuer import IssuerAddress, read_metadata
from authz.tokens.issuer_http import IssuerEndpoint, IssuerError

_METADATA_AGE: Final = 3600.0  # seconds; a fault forgets it at once
_PUSHED: Final = "pushed_authorization_request_endpoint"
_TOKEN: Final = "token_endpoint"  # noqa: S105 - the name of a member
_REVOCATION: Final = "revocation_endpoint"
_ENDPOINTS: Final = (_PUSHED, _TOKEN, _REVOCATION)

# What kind of thing it is stands before each of Authelia's secrets, and no setting of it changes
# that. Strangers' junk would fill its failure limit, and a code is no refresh token. The rest of
# the shape is not ours to know: another version may make them longer.
_SECRET: Final = r"[A-Za-z0-9_-]{16,512}\.[A-Za-z0-9_-]{16,512}\Z"  # noqa: S105 - a pattern
_CODE: Final = re.compile("authelia_ac_" + _SECRET)
_REFRESH: Final = re.compile("authelia_rt_" + _SECRET)
_REQUEST_URI: Final = re.compile(r"urn:ietf:params:oauth:request_uri:[\x21-\x7e]{16,512}\Z")
_LONGEST_TOKEN: Final = 8192
_JWT_DOTS: Final = 2
_MOST_ENDED: Final = 10_000  # tokens that are remembered, by digest


@dataclass(frozen=True, slots=True)
class OurClient:
    """Name one of our clients at Authelia, and what proves that we are it."""

    client_id: str
    auth: ClientAuth


@dataclass(frozen=True, slots=True)
class _Metadata:
    authorize: str
    targets: Mapping[str, IssuerEndpoint]


class Authelia:
    """Log people in at Authelia. One per process, used from one event loop."""

    def __init__(
        self,
        address: IssuerAddress,
        one_factor: OurClient,
        two_factor: OurClient,
        response_verifier: TokenResponseVerifier,
        client: httpx.AsyncClient,
        *,
        total: float = 10.0,
        at_once: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take where Authelia is, who we are to it, and what verifies its tokens.

        Args:
            address: Authelia's name and how it is reached.
            one_factor: our client whose log-ins may be by password alone.
            two_factor: our client whose log-ins need a second factor.
            response_verifier: verifies what it gives.
            client: of `issuer_http.issuer_client`, with as many connections as `at_once`.
            total: seconds for one call with everything that it needs.
            at_once: calls under way; four times as many may wait for them.
            clock: seconds that never go back.
        """
        self._address = address
        self._clients = {False: one_factor, True: two_factor}
        self._response_verifier = response_verifier
        self._client = client
        self._total = total
        self._clock = clock
        self._concurrency = ConcurrencyLimit(at_once, at_once * 4)
        self._lockouts = Lockouts(clock)
        self._found: tuple[_Metadata, float] | None = None
        self._finding = asyncio.Lock()
        self._ended = OrderedDict[bytes, None]()

    async def push(self, asked: UpstreamAuthorizationRequest, address: str) -> str:
        """Push an authorization request (RFC 9126); return where the browser goes.

        No `prompt` is sent: `max_age` alone lets Authelia ask for the password again. For
        `offline_access` Authelia shows a consent page of its own, whatever its `consent_mode`.

        Raises:
            UpstreamError: where Authelia answers with an OAuth error.
            UnavailableError: where it gives no usable answer.
        """
        # Whoever could not exchange the code afterwards is not sent to log in first.
        self._lockouts.check(_TOKEN, _plain(address))
        with _in_time("no metadata in time"):
            async with asyncio.timeout(self._total):
                authorize = (await self._metadata()).authorize
        answer = await self._ask(_PUSHED, asked.two_factor, _request(asked), address)
        request_uri = answer.get("request_uri")
        if not isinstance(request_uri, str) or _REQUEST_URI.match(request_uri) is None:
            raise UnavailableError("issuer", "request_uri is malformed")
        client_id = self._clients[asked.two_factor].client_id
        query = urlencode({"client_id": client_id, "request_uri": request_uri})
        return f"{authorize}?{query}"

    async def exchange(
        self,
        *,
        two_factor: bool,
        code: str,
        verifier: str,
        redirect_uri: str,
        nonce: str,
        address: str,
    ) -> UpstreamLogin:
        """Exchange a code for tokens (RFC 6749, section 4.1.3; RFC 7636, section 4.5).

        Raises:
            UpstreamError: where Authelia answers with an OAuth error; `invalid_grant` also for
                what is no code of Authelia's, which is not sent, and for tokens of another
                transaction.
            UnavailableError: where it gives no usable answer, tokens that prove nothing included.
        """
        if _CODE.match(code) is None:
            raise UpstreamError("invalid_grant")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        }
        answer = await self._ask(_TOKEN, two_factor, form, address)
        client_id = self._clients[two_factor].client_id
        return await self._logged_in(answer, ExpectedTokens(client_id, nonce=nonce))

    async def refresh(
        self, *, two_factor: bool, refresh_token: str, subject: str, address: str
    ) -> UpstreamLogin:
        """Refresh tokens (RFC 6749, section 6); the old refresh token is worthless afterwards.

        A caller that may be cancelled shields this call: with its answer the grant would be lost.

        Raises:
            UpstreamError: as `exchange`; `invalid_grant` also for tokens of another person.
            UnavailableError: as `exchange`.
        """
        if _REFRESH.match(refresh_token) is None:
            raise UpstreamError("invalid_grant")
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        answer = await self._ask(_TOKEN, two_factor, form, address)
        client_id = self._clients[two_factor].client_id
        return await self._logged_in(answer, ExpectedTokens(client_id, subject=subject))

    async def revoke(self, *, two_factor: bool, token: str, address: str) -> None:
        """End a token, and with it its whole family at Authelia (RFC 7009).

        One that Authelia has ended lately it is not told again: whoever holds a spent code or
        token can send it as often as he likes.

        Raises:
            UpstreamError: where Authelia answers with an OAuth error.
            UnavailableError: where it gives no usable answer, so that the token may live on.
        """
        if not token or len(token) > _LONGEST_TOKEN or not token.isascii():
            return  # RFC 7009, section 2.2: what is no token is ended already
        name = hashlib.sha256(token.encode("ascii")).digest()
        if name in self._ended:
            return
        await self._ask(_REVOCATION, two_factor, {"token": token}, address)
        self._ended[name] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    def log_out_url(self, back: str) -> str:
        """Return where a person's session at Authelia ends, to come back to a page of ours."""
        return f"{self._address.issuer.rstrip('/')}/logout?{urlencode({'rd': back})}"

    def check_iss(self, iss: str | None) -> None:
        """Refuse an authorization answer that is not Authelia's (RFC 9207, section 2.4).

        It must name its issuer, exactly: Authelia's metadata promises that it always does, and
        without that promise nobody is sent there.

        Raises:
            UpstreamError: `invalid_request`.
        """
        if iss != self._address.issuer:
            raise UpstreamError("invalid_request")

    async def _logged_in(
        self, answer: Mapping[str, object], expected: ExpectedTokens
    ) -> UpstreamLogin:
        access, identifying = _token(answer, "access_token"), _token(answer, "id_token")
        if access.count(".") != _JWT_DOTS:
            # Authelia's default, where `access_token_signed_response_alg` is not set.
            raise UpstreamError(OPAQUE_TOKEN)
        refresh = answer.get("refresh_token")
        if refresh is not None and (
            not isinstance(refresh, str) or _REFRESH.match(refresh) is None
        ):
            raise UnavailableError("issuer", "the refresh token is malformed")
        try:
            with _in_time("no keys in time"):
                async with asyncio.timeout(self._total):
                    principal, identity = await self._response_verifier.check(
                        access, identifying, expected
                    )
        except InvalidTokenResponseError as error:
            if error.foreign:
                raise UpstreamError("invalid_grant") from error
            raise UnavailableError("issuer", error.description) from error
        tokens = UpstreamTokens(
            access, refresh, principal.expires_at, principal.scopes, principal.audience
        )
        return UpstreamLogin(tokens, identity)

    async def _ask(
        self, endpoint: str, two_factor: bool, form: Mapping[str, str], address: str
    ) -> Mapping[str, object]:
        address = _plain(address)
        self._lockouts.check(endpoint, address)
        try:
            with _in_time("no whole answer in time"):
                async with asyncio.timeout(self._total), self._concurrency.slot():
                    # Whoever waited may have been locked meanwhile.
                    self._lockouts.check(endpoint, address)
                    return await self._send(endpoint, two_factor, form, address)
        except UpstreamRateLimitedError as error:
            self._lockouts.lock(endpoint, address, error.seconds)
            raise UnavailableError("issuer", "too many failures of this address") from error

    async def _send(
        self, endpoint: str, two_factor: bool, form: Mapping[str, str], address: str
    ) -> Mapping[str, object]:
        target = (await self._metadata()).targets[endpoint]
        # The proof is made last: it lives for a minute.
        proof = self._clients[two_factor].auth.proof()
        headers = {**target.headers, **proof.headers, "X-Forwarded-For": address}
        try:
            there = IssuerEndpoint(target.url, headers)
            return await send(self._client, there, {**form, **proof.form})
        except (UnavailableError, asyncio.CancelledError):
            # It may have moved. Turning a call away here forgets nothing: that would make every
            # call of a locked address one for the metadata.
            self._found = None
            raise

    async def _metadata(self) -> _Metadata:
        """Return Authelia's metadata, read once for all who ask meanwhile."""
        async with self._finding:
            if self._found is None or self._clock() - self._found[1] >= _METADATA_AGE:
                try:
                    document = await read_metadata(self._address, self._client)
                    self._found = self._understood(document), self._clock()
                except IssuerError as error:
                    raise UnavailableError("issuer", f"metadata: {error.detail}") from error
            return self._found[0]

    def _understood(self, document: Mapping[str, object]) -> _Metadata:
        # RFC 9207, section 3: `check_iss` rests on it.
        if document.get("authorization_response_iss_parameter_supported") is not True:
            raise UnavailableError("issuer", "it does not say who answers (RFC 9207)")
        authorize = document.get("authorization_endpoint")
        home = self._address.issuer.rstrip("/") + "/"
        # Where a browser is sent is not asked for at an internal address: it is a place of
        # Authelia's own name, or somebody else would be shown passwords.
        if not isinstance(authorize, str) or not _is_below(authorize, home):
            raise UnavailableError("issuer", "authorization_endpoint is elsewhere")
        targets = {name: self._address.endpoint(name, document.get(name)) for name in _ENDPOINTS}
        return _Metadata(authorize, targets)


@contextmanager
def _in_time(description: str) -> Iterator[None]:
    """Turn a time-out into a fault of Authelia's."""
    try:
        yield
    except TimeoutError as error:
        raise UnavailableError("issuer", description) from error


def _is_below(url: str, home: str) -> bool:
    return url.startswith(home) and re.fullmatch(r"[A-Za-z0-9._~/-]*", url[len(home) :]) is not None


def _request(asked: UpstreamAuthorizationRequest) -> dict[str, str]:
    form = {
        "response_type": "code",
        "redirect_uri": asked.redirect_uri,
        "scope": " ".join(sorted(asked.scopes)),
        "state": asked.state,
        "nonce": asked.nonce,
        "code_challenge": s256_challenge(asked.verifier),
        "code_challenge_method": "S256",
    }
    if asked.resource is not None:
        # Authelia's own parameter, and never `resource` (RFC 8707) beside it: 4.39.20 refuses both
        # together, and later versions grant `resource` without putting it into the token's `aud`.
        # Token requests repeat it not: what they leave out is as it was granted (section 2.2).
        form["audience"] = asked.resource
    if asked.max_age is not None:
        # Authelia meets no 0: every log-in is too old for it, and it asks for ever.
        form["max_age"] = str(max(asked.max_age, 1))
    return form


def _plain(address: str) -> str:
    """Return an address as Authelia counts by; nothing else ever gets into that header."""
    return str(ip_address(ip_address(address).packed))


def _token(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TOKEN:
        raise UnavailableError("issuer", f"{name} is missing or malformed")
    return value
