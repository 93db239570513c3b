"""Clients that register themselves (RFC 7591): each gets its own registration, signed, as its id.

Invariant: nothing is stored, so nothing fills up and nothing is lost. A `client_id` is believed
only under a signature of ours, and what it says is held against the rules now in force, not those
of the day when it was made.

Registering the same metadata twice gives two ids (RFC 7591, section 5: they vary between
instances), so that one of them can be blocked, and one name, by which limits count.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from authz.core.strict_json import StrictJsonError, loads
from authz.login.clients.client_metadata import (
    GRANT_TYPES,
    RESPONSE_TYPES,
    ClientMetadataError,
    check_grants,
    read_client_name,
    read_redirect_uris,
    read_refreshes,
)
from authz.login.clients.redirects import RedirectRules
from authz.login.protocol.values import OAuthError
from authz.tokens import base64url

LARGEST: Final = 16 * 1024  # bytes of metadata
LONGEST_ID: Final = 2048  # characters: it travels in URLs
PREFIX: Final = "dyn."

_VERSION: Final = 1
_NO_REFRESH: Final = "no-refresh"
_MAX_DEPTH: Final = 8
_FORBIDDEN: Final = 403


class NotRegisteredError(Exception):
    """Say that an id is no registration of ours, or leads nowhere any more."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Hold what a signed `client_id` says, and the rules now allow.

    Attributes:
        redirect_uris: at least one.
        client_name: printable; empty where the client has none.
        issued_at: seconds since the epoch.
        refreshes: whether it uses refresh tokens.
    """

    redirect_uris: tuple[str, ...]
    client_name: str
    issued_at: int
    refreshes: bool = True


class Registrations:
    """Register clients, and read what was registered."""

    def __init__(
        self,
        keys: Sequence[bytes],
        rules: RedirectRules,
        clock: Callable[[], float],
        *,
        taken: bool = True,
    ) -> None:
        """Take how to sign and what to allow.

        Args:
            keys: for HMAC, newest first (`Sealer.mac_key("client")`); the newest signs, all verify.
            rules: which redirect URIs are allowed.
            clock: seconds since the epoch.
            taken: whether clients may register at all; where not, old ids are refused, too.
        """
        if not keys:
            raise ValueError("nothing to sign with")
        self._keys = tuple(keys)
        self._rules = rules
        self._clock = clock
        self.taken = taken

    def register(self, metadata: bytes) -> Mapping[str, object]:
        """Return the answer (201) to a registration: what was asked for, narrowed to what there is.

        `scope` is not registered, so not answered either (RFC 7591, section 3.2.1): what a client
        may ask for goes by rules. Whatever way of authentication it asks for, it gets `none`.

        Raises:
            OAuthError: as section 3.2.2 says.
        """
        if not self.taken:
            raise OAuthError(
                "invalid_client_metadata",
                "clients do not register here: the operator has to name this one",
                _FORBIDDEN,
            )
        if len(metadata) > LARGEST:
            raise OAuthError("invalid_client_metadata", "the metadata is longer than 16 KiB")
        try:
            said = loads(metadata, max_depth=_MAX_DEPTH)
        except StrictJsonError as error:
            raise OAuthError("invalid_client_metadata", "not strict JSON") from error
        if not isinstance(said, dict):
            raise OAuthError("invalid_client_metadata", "not a JSON object")
        try:
            check_grants(said)
            registered = Registered(
                read_redirect_uris(said, self._rules),
                read_client_name(said),
                int(self._clock()),
                read_refreshes(said),
            )
        except ClientMetadataError as error:
            raise OAuthError(error.error, error.description) from error
        return _answer(self._sign(registered), registered)

    def read(self, client_id: str) -> Registered:
        """Return what is registered under an id.

        Raises:
            NotRegisteredError: where that is nothing, or nothing that is allowed any more.
        """
        if not self.taken or len(client_id) > LONGEST_ID or not client_id.isascii():
            raise NotRegisteredError
        signed, _, mac = client_id.rpartition(".")
        # Every key is tried, so that time does not tell which one it was.
        if not signed.startswith(PREFIX) or not any(
            [hmac.compare_digest(_mac(key, signed), mac) for key in self._keys]  # noqa: C419
        ):
            raise NotRegisteredError
        try:
            version, issued_at, _, client_name, uris, *without = json.loads(
                base64url.decode(signed.removeprefix(PREFIX))
            )
        except ValueError as error:
            raise NotRegisteredError from error
        allowed = tuple(uri for uri in uris if self._rules.allow(uri))
        if version != _VERSION or not allowed:
            raise NotRegisteredError
        return Registered(allowed, client_name, issued_at, refreshes=_NO_REFRESH not in without)

    def _sign(self, registered: Registered) -> str:
        payload = [
            _VERSION,
            registered.issued_at,
            secrets.token_urlsafe(6),
            registered.client_name,
            registered.redirect_uris,
            *(() if registered.refreshes else (_NO_REFRESH,)),
        ]
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        signed = PREFIX + base64url.encode(text.encode())
        client_id = f"{signed}.{_mac(self._keys[0], signed)}"
        if len(client_id) > LONGEST_ID:
            raise OAuthError(
                "invalid_client_metadata",
                "the redirect URIs and the name are too long to be registered together",
            )
        return client_id


def _mac(key: bytes, signed: str) -> str:
    return base64url.encode(hmac.digest(key, signed.encode("ascii"), hashlib.sha256))


def _answer(client_id: str, registered: Registered) -> Mapping[str, object]:
    answer: dict[str, object] = {
        "client_id": client_id,
        "client_id_issued_at": registered.issued_at,
        "redirect_uris": list(registered.redirect_uris),
        "grant_types": list(GRANT_TYPES if registered.refreshes else GRANT_TYPES[:1]),
        "response_types": list(RESPONSE_TYPES),
        "token_endpoint_auth_method": "none",
    }
    if registered.client_name:
        answer["client_name"] = registered.client_name
    return answer
