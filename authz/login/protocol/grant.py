"""Grants: what a person consented to, and the newest tokens of it.

Nothing of a token is in it but digests, and Authelia's refresh token sealed: whoever ends the grant
need not be able to open it.

Invariant: what `encode` does not write is no grant.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Final

from pydantic import ConfigDict

from authz.core.principal import LoginRecord
from authz.core.strict_json import StrictJsonError, loads
from authz.login.protocol.authorization_code import AuthorizationCode
from authz.login.protocol.issued import Issued
from authz.login.protocol.members import STRICT, MembersCodec, MembersError, digest
from authz.login.protocol.values import ClientIdentity


@dataclass(frozen=True, slots=True)
class Grant:
    """Hold one grant.

    Attributes:
        id: random, 128 bits.
        account: what the person is called; may be empty.
        client: the client's name, as rules count it.
        client_id: as the client names itself.
        title: its `client_name`, under the name of the stored member.
        server: its name; `resource` its URL at the time of the consent.
        scopes: what was consented to, sorted.
        two_factor: through which of our clients at Authelia.
        created_at, used_at: the consent, and the last time that tokens were given.
        amr, auth_time: of the newest ID token.
        expires_at: of the newest access token.
        access: its digest, hex SHA-256.
        refresh: the digest of the newest refresh token; empty where there is none.
        upstream: Authelia's newest refresh token, or its access token where there is none, sealed
            (`store.sealed.seal_upstream`); empty in what was written before it was kept.
        redirect_uri, ends_at, document_host: of the log-in, as in `LoginRecord`; empty likewise.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

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
    """Read a grant; None for anything that `encode` does not write, in this version or before."""
    try:
        return _GRANT.read(loads(raw))
    except (StrictJsonError, MembersError):
        return None


_GRANT: Final = MembersCodec(Grant)


def begun_grant(
    code: AuthorizationCode,
    client_id: str,
    client: ClientIdentity,
    *,
    now: int,
    refresh_token: str | None,
    upstream: str,
) -> Grant:
    """Return the grant that a code begins.

    Args:
        code: the code.
        client_id: as the client names itself.
        client: what it is.
        now: seconds since the epoch.
        refresh_token: ours.
        upstream: Authelia's token, sealed.
    """
    return Grant(
        id=code.grant_id,
        account=code.account,
        client=client.name,
        client_id=client_id,
        title=client.client_name,
        redirect_uri=client.redirect_uri,
        ends_at=client.ends_at,
        document_host=client.document_host,
        server=code.server,
        resource=code.resource,
        scopes=code.scopes,
        two_factor=code.two_factor,
        created_at=code.consented_at,
        used_at=now,
        amr=code.amr,
        auth_time=code.auth_time,
        expires_at=code.expires_at,
        access=digest(code.access_token),
        refresh="" if refresh_token is None else digest(refresh_token),
        upstream=upstream,
    )


def renewed_grant(
    grant: Grant, record: LoginRecord, issued: Issued, *, now: int, upstream: str
) -> Grant:
    """Return a grant after a refresh that issued tokens."""
    return replace(
        grant,
        used_at=now,
        amr=tuple(sorted(record.amr)),
        auth_time=record.auth_time,
        expires_at=issued.expires_at,
        access=digest(issued.access_token),
        refresh="" if issued.refresh_token is None else digest(issued.refresh_token),
        upstream=upstream,
        redirect_uri=record.redirect_uri,
        ends_at=record.ends_at,
        document_host=record.document_host,
    )
