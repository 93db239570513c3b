"""What the token endpoint issues (RFC 6749, section 5.1), and the login record behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from authz.core.principal import LoginRecord
from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.protocol.values import ClientIdentity, LoginIdentity


@dataclass(frozen=True, slots=True)
class Issued:
    """Hold issued tokens.

    Attributes:
        access_token: Authelia's.
        refresh_token: ours; None where the log-in gives none.
        expires_at: of the access token, seconds since the epoch.
        scopes: granted, sorted.
        restricted: whether the client asked for more.
        network: from which the refresh came; empty where that is not kept.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: int
    scopes: tuple[str, ...]
    restricted: bool = False
    network: Annotated[str, Field(alias="place")] = ""


ISSUED: Final = MembersCodec(Issued)


def token_response(issued: Issued, now: float) -> Mapping[str, object]:
    """Return the members of a successful response.

    RFC 6749, section 5.1: without `scope` a client takes it that it was granted what it asked for.
    So where it asked for something (`restricted`) and nothing is granted, as at a server without
    scopes, that is said too.
    """
    members: dict[str, object] = {
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": max(int(issued.expires_at - now), 0),
    }
    if issued.scopes or issued.restricted:
        members["scope"] = " ".join(sorted(issued.scopes))
    if issued.refresh_token is not None:
        members["refresh_token"] = issued.refresh_token
    return members


def login_record(
    grant_id: str, client_id: str, client: ClientIdentity, who: LoginIdentity
) -> LoginRecord:
    """Return the record behind an access token."""
    return LoginRecord(
        client=client.name,
        client_id=client_id,
        grant=grant_id,
        subject=who.subject,
        amr=who.amr,
        auth_time=who.auth_time,
        account=who.account,
        redirect_uri=client.redirect_uri,
        ends_at=client.ends_at,
        document_host=client.document_host,
    )
