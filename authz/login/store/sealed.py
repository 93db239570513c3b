"""Values that clients, browsers and Redis keep sealed: each under its own purpose."""

from dataclasses import replace
from typing import Final, Generic, TypeVar

from authz.login.protocol.authorization_code import AUTHORIZATION_CODE, USED_CODE
from authz.login.protocol.issued import ISSUED
from authz.login.protocol.members import MembersCodec, MembersError
from authz.login.protocol.refresh import (
    REFRESH_TOKEN,
    UPSTREAM_TOKEN,
    RefreshToken,
    UpstreamToken,
)
from authz.login.store.person_address import person_address
from authz.tokens.sealing import NotSealedError, Sealer

T = TypeVar("T")
# A grant may be ended in its last moment, while Authelia is away. Seconds.
_UPSTREAM_MARGIN: Final = 86_400


class SealedValue(Generic[T]):
    """Seal and open values of one kind."""

    def __init__(self, purpose: str, codec: MembersCodec[T]) -> None:
        self._purpose = purpose
        self._codec = codec

    def seal(self, sealer: Sealer, value: T, lifetime: float) -> str:
        """Return a value as a text that opens for so many seconds."""
        return sealer.seal(self._purpose, self._codec.write(value), lifetime)

    def open(self, sealer: Sealer, text: str) -> T:
        """Return the value of a text.

        Raises:
            NotSealedError: where it is no such value of ours, or too old.
        """
        try:
            return self._codec.read(sealer.open(self._purpose, text))
        except MembersError as error:
            raise NotSealedError from error


CODE: Final = SealedValue("code", AUTHORIZATION_CODE)
USED: Final = SealedValue("used-code", USED_CODE)
REFRESH_ANSWER: Final = SealedValue("refresh-answer", ISSUED)
LATEST_ANSWER: Final = SealedValue("latest-answer", ISSUED)
_REFRESH: Final = SealedValue("refresh-token", REFRESH_TOKEN)
_UPSTREAM: Final = SealedValue("upstream-token", UPSTREAM_TOKEN)


def seal_refresh(sealer: Sealer, token: RefreshToken, lifetime: float) -> str:
    """Return a refresh token as its client keeps it."""
    return _REFRESH.seal(sealer, token, lifetime)


def open_refresh(sealer: Sealer, text: str, issuer: str) -> RefreshToken:
    """Return what a client sent, with the address of its person.

    Raises:
        NotSealedError: where it is none of ours, too old, or of an issuer that was ours before.
    """
    token = _REFRESH.open(sealer, text)
    if token.issuer != issuer:
        raise NotSealedError
    return replace(token, address=person_address(sealer, token.subject))


def seal_upstream(sealer: Sealer, token: UpstreamToken, lifetime: float) -> str:
    """Return a token of Authelia's as its grant keeps it; empty where there is none."""
    if not token.token:
        return ""
    return _UPSTREAM.seal(sealer, token, lifetime + _UPSTREAM_MARGIN)


def open_upstream(sealer: Sealer, text: str, issuer: str) -> UpstreamToken:
    """Return what a grant kept.

    Raises:
        NotSealedError: where it is none of ours, too old, or of an issuer that was ours before.
    """
    token = _UPSTREAM.open(sealer, text)
    if token.issuer != issuer:
        raise NotSealedError
    return token
