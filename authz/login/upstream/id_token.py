"""Verify a token response of Authelia's: an access token and the ID token beside it.

Invariant: both are signed by the issuer, for the client of ours that asked, about the same person,
and belong to each other; or nothing is proven. What an ID token does not say, it does not prove.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from authz.core.principal import Principal
from authz.core.request import RefusedError
from authz.login.protocol.values import LoginIdentity
from authz.tokens.claims import ClaimRules, is_seconds, is_text, read_principal
from authz.tokens.jose import Unverified, read_id_token, read_jws
from authz.tokens.jwk import DEFAULT_ALGORITHMS, VerificationKey
from authz.tokens.keys import SigningKeys
from authz.tokens.signature import SignatureVerifier

_LONGEST_ADDRESS: Final = 254  # RFC 5321, section 4.5.3.1.3
_MOST_METHODS: Final = 32

Claims = Mapping[str, object]


class InvalidTokenResponseError(Exception):
    """Say that tokens do not prove the log-in that was asked for.

    Attributes:
        description: why, fixed text for the log.
        foreign: whether they are good tokens, but of another transaction, client or person.
    """

    def __init__(self, description: str, *, foreign: bool = False) -> None:
        """Keep why."""
        super().__init__(description)
        self.description = description
        self.foreign = foreign


@dataclass(frozen=True, slots=True)
class ExpectedTokens:
    """Say whose tokens they have to be.

    Attributes:
        client_id: the client of ours that asked.
        nonce: of the transaction; None at a refresh, whose answer is bound by the refresh token.
        subject: the person; None where that is what the log-in is to tell.
    """

    client_id: str
    nonce: str | None = None
    subject: str | None = None


class TokenResponseVerifier:
    """Verify what Authelia's token endpoint gave."""

    def __init__(
        self,
        keys: SigningKeys,
        rules: ClaimRules,
        algorithms: frozenset[str] = DEFAULT_ALGORITHMS,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the issuer's keys and rules; `clock` gives seconds since the epoch.

        Raises:
            ValueError: where an algorithm is not an asymmetric signature.
        """
        self._signatures = SignatureVerifier(keys, algorithms)
        self._rules = rules
        self._algorithms = algorithms
        self._clock = clock

    async def check(
        self, access_token: str, id_token: str, expected: ExpectedTokens
    ) -> tuple[Principal, LoginIdentity]:
        """Return whom the access token stands for, and how that person logged in.

        Raises:
            InvalidTokenResponseError: where they are not both good, of one log-in, and expected.
            UnavailableError: where the issuer's keys cannot be had.
        """
        try:
            signed = read_jws(access_token, self._algorithms)
            key = await self._verify(access_token, signed)
            stated = read_id_token(id_token, self._algorithms)
            await self._verify(id_token, stated, key if expected.nonce is None else None)
            principal = self._principal(signed)
        except RefusedError as refused:
            raise InvalidTokenResponseError(
                f"a token is not good: {refused.detail or 'expired'}"
            ) from refused
        _check_principal(principal, expected)
        return principal, self._identity(stated, access_token, principal, expected)

    async def _verify(
        self, token: str, unverified: Unverified, beside: VerificationKey | None = None
    ) -> VerificationKey:
        """Return the issuer's key that has signed a token.

        Args:
            token: the whole token.
            unverified: its parts.
            beside: the key that has signed the access token of a refresh. The ID token of it is
                signed with the same one, and names the `kid` that was in use at the log-in
                (Authelia 4.39.20 and later, tests/fixtures/authelia/rotation.json), which may be
                gone. A `kid` is a hint (RFC 7515, section 4.1.4).

        Raises:
            InvalidTokenResponseError: where it is of another issuer.
            RefusedError: where no key of the issuer's has signed it.
            UnavailableError: where the issuer's keys cannot be had.
        """
        if unverified.claims.get("iss") != self._rules.issuer:
            raise InvalidTokenResponseError("iss is not the configured issuer", foreign=True)
        if beside is not None and self._signatures.is_signed_by(token, unverified, beside):
            return beside
        return await self._signatures.verify(token, unverified, self._clock())

    def _principal(self, signed: Unverified) -> Principal:
        claims, now = dict(signed.claims), self._clock()
        if claims.get("aud") != []:
            return read_principal(claims, self._rules, now, token_id="", key_id="")
        # A step-up names no server, and Authelia answers with a token for nobody: good as a proof
        # of who it is, of no use to any server. The audience is the caller's to compare.
        claims["aud"] = [self._rules.issuer]
        principal = read_principal(claims, self._rules, now, token_id="", key_id="")
        return replace(principal, audience=())

    def _identity(
        self, stated: Unverified, access_token: str, principal: Principal, expected: ExpectedTokens
    ) -> LoginIdentity:
        claims = stated.claims
        _check_audience(claims, expected.client_id)
        for name in ("exp", "iat"):
            _seconds(claims, name)
        self._check_registered(stated, access_token, expected)
        # OpenID Connect Core, section 12.2, for refreshes; and the access token handed on must be
        # of the person whose log-in is recorded for it. Its `sub` keeps to the rules for text.
        if claims.get("sub") != principal.subject:
            raise InvalidTokenResponseError(
                "the ID token is of another person than the access token", foreign=True
            )
        return LoginIdentity(
            subject=principal.subject or "",
            amr=_methods(claims),
            auth_time=self._auth_time(claims),
            account=_text(claims, "preferred_username"),
            email=_email(claims),
            name=_text(claims, "name"),
            groups=principal.groups,
        )

    def _check_registered(
        self, stated: Unverified, access_token: str, expected: ExpectedTokens
    ) -> None:
        """Check `nonce`, and let the library check `azp`, `at_hash`, `exp`, `iat` and `nbf`.

        OpenID Connect Core, sections 3.1.3.7 and 3.1.3.8. At a refresh no nonce is expected, and
        one that is repeated says nothing.
        """
        claims = dict(stated.claims)
        for name in ("nonce", "azp", "at_hash"):
            if not isinstance(claims.get(name, ""), str):
                raise InvalidTokenResponseError(f"{name} is not a string")
        if expected.nonce is not None and claims.get("nonce") != expected.nonce:
            raise InvalidTokenResponseError("the nonce is of another transaction", foreign=True)
        token = CodeIDToken(
            claims,
            {"alg": stated.algorithm},
            params={
                "client_id": expected.client_id,
                "access_token": access_token,
            },
        )
        try:
            token.validate(now=int(self._clock()), leeway=self._rules.leeway)
        except JoseError as error:
            raise InvalidTokenResponseError(
                "a claim of the ID token is not as it must be"
            ) from error

    def _auth_time(self, claims: Claims) -> int:
        """Return when the person typed something last: a rule about age rests on it."""
        auth_time = _seconds(claims, "auth_time")
        if auth_time > self._clock() + self._rules.leeway:
            raise InvalidTokenResponseError("auth_time is in the future")
        return auth_time


def _check_principal(principal: Principal, expected: ExpectedTokens) -> None:
    if principal.client_id != expected.client_id:
        raise InvalidTokenResponseError("the access token is of another client", foreign=True)
    if principal.subject is None:
        raise InvalidTokenResponseError("the access token is of no person", foreign=True)
    if expected.subject not in (None, principal.subject):
        raise InvalidTokenResponseError("the tokens are of another person", foreign=True)


def _check_audience(claims: Claims, client_id: str) -> None:
    """Refuse an ID token that is for anybody else too (OpenID Connect Core, section 3.1.3.7)."""
    if claims.get("aud") not in (client_id, [client_id]):
        raise InvalidTokenResponseError("the ID token is for another client", foreign=True)


def _seconds(claims: Claims, name: str) -> int:
    value = claims.get(name)
    if not is_seconds(value):
        raise InvalidTokenResponseError(f"{name} is not a number of seconds")
    return value


def _methods(claims: Claims) -> frozenset[str]:
    """Return `amr` (RFC 8176) to the letter; an ID token without it proves no method."""
    value = claims.get("amr")
    if value is None:  # Go writes a list that was never made as null
        return frozenset()
    if not isinstance(value, list) or len(value) > _MOST_METHODS:
        raise InvalidTokenResponseError("amr is not a short list")
    methods = [method for method in value if is_text(method)]
    if len(methods) != len(value):
        raise InvalidTokenResponseError("an entry of amr is malformed")
    return frozenset(methods)


def _email(claims: Claims) -> str:
    """Return the address by which operators may name a person (OpenID Connect Core, 5.1)."""
    value = claims.get("email")
    if claims.get("email_verified", True) is not True:
        return ""
    return value if is_text(value, _LONGEST_ADDRESS) and "@" in value else ""


def _text(claims: Claims, name: str) -> str:
    """Return a name that a page may show; empty where there is none that could be shown."""
    value = claims.get(name)
    return value if is_text(value) else ""
