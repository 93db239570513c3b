"""What the token endpoint gives (RFC 6749, section 5.1), and the record that goes before it.

Law: no ID token, no scope but the consented ones, and no more seconds than remain.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from authz.core.principal import LoginRecord
from authz.login.protocol.values import ClientIdentity, LoginIdentity
from authz.login.service.refresh_tokens import RefreshToken


def token_answer(
    *,
    access_token: str,
    refresh_token: str | None,
    scopes: Iterable[str],
    expires_at: int,
    now: float,
    restricted: bool = False,
) -> Mapping[str, Any]:
    """Return the members of a successful answer.

    RFC 6749, section 5.1: without `scope` a client takes it that it was granted what it asked for.
    So where it asked for something (`restricted`) and nothing is granted, as at a server without
    scopes, that is said too.
    """
    answer: dict[str, Any] = {
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": max(int(expires_at - now), 0),
    }
    granted = " ".join(sorted(scopes))
    if granted or restricted:
        answer["scope"] = granted
    if refresh_token is not None:
        answer["refresh_token"] = refresh_token
    return answer


def log_in_of(
    token: RefreshToken, client_id: str, client: ClientIdentity, who: LoginIdentity
) -> LoginRecord:
    """Return the record behind an access token."""
    return LoginRecord(
        client=client.name,
        client_id=client_id,
        grant=token.grant,
        subject=who.subject,
        amr=who.amr,
        auth_time=who.auth_time,
        account=who.account,
        redirect_uri=client.redirect_uri,
        ends_at=client.ends_at,
        document_host=client.document_host,
    )
