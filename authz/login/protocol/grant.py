"""A grant as a value, and as bytes: what a person consented to, and where it stands.

Law: read strictly; what `encode` does not write is no grant. Nothing of a token is in it but
digests, and Authelia's refresh token sealed: whoever ends the grant need not be able to open it.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Final

from authz.core.principal import LoginRecord
from authz.core.strict_json import StrictJsonError, loads


@dataclass(frozen=True, slots=True)
class Grant:
    """Hold one grant.

    Attributes:
        id: random, 128 bits.
        account: what the person is called; may be empty.
        client: the client's name, as rules count it.
        client_id: as the client names itself.
        title: what it calls itself.
        server: its name; `resource` its URL at the time of the consent.
        scopes: what was consented to, sorted.
        two_factor: through which of our clients at Authelia.
        created_at, used_at: the consent, and the last time that tokens were given.
        amr, auth_time: of the newest ID token.
        expires_at: of the newest access token.
        access: its digest, hex SHA-256.
        refresh: the digest of the newest refresh token; empty where there is none.
        upstream: Authelia's newest refresh token, or its access token where there is none, sealed
            (`revocation_outbox.seal_upstream`); empty in what was written before it was kept.
        redirect_uri, ends_at, document_host: of the log-in, as `LogIn` has them; empty likewise.
    """

    id: str
    account: str
    client: str
    client_id: str
    title: str
    server: str
    resource: str
    scopes: tuple[str, ...]
    two_factor: bool
    created_at: int
    used_at: int
    amr: tuple[str, ...]
    auth_time: int
    expires_at: int
    access: str
    refresh: str
    upstream: str = field(default="", repr=False)
    redirect_uri: str = ""
    ends_at: str = ""
    document_host: str = ""


def encode(grant: Grant) -> bytes:
    """Return a grant as bytes."""
    return json.dumps(asdict(grant), separators=(",", ":")).encode()


def decode(raw: bytes) -> Grant | None:
    """Read a grant; None for anything that `encode` does not write."""
    try:
        found = loads(raw)
    except StrictJsonError:
        return None
    if not isinstance(found, dict):
        return None
    for name in _LATER:
        found.setdefault(name, "")
    if found.keys() != {each.name for each in fields(Grant)}:
        return None
    for name in _LISTS:
        value = found[name]
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            return None
        found[name] = tuple(value)
    if not all(isinstance(found[name], str) for name in _TEXTS):
        return None
    if not all(type(found[name]) is int for name in _MOMENTS):
        return None
    if not isinstance(found["two_factor"], bool):
        return None
    return Grant(**found)


# Not in what a version before wrote.
_LATER: Final = ("upstream", "redirect_uri", "ends_at", "document_host")
_LISTS: Final = ("scopes", "amr")
_MOMENTS: Final = ("created_at", "used_at", "auth_time", "expires_at")
_TEXTS: Final = (
    "id", "account", "client", "client_id", "title", "server", "resource", "access", "refresh",
    "upstream", "redirect_uri", "ends_at", "document_host",
)  # fmt: skip


def renewed(
    grant: Grant,
    log_in: LoginRecord,
    *,
    now: int,
    expires_at: int,
    access: str,
    refresh: str,
    upstream: str,
) -> Grant:
    """Return a grant after a refresh."""
    return replace(
        grant,
        used_at=now,
        amr=tuple(sorted(log_in.amr)),
        auth_time=log_in.auth_time,
        expires_at=expires_at,
        access=access,
        refresh=refresh,
        upstream=upstream,
        redirect_uri=log_in.redirect_uri,
        ends_at=log_in.ends_at,
        document_host=log_in.document_host,
    )
