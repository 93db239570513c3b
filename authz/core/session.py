"""MCP sessions, bound to the caller that used them first.

MCP servers bind a session to the caller that they see. Behind this gateway they see none, since
the token is removed; so the binding is made here, at the first use of an `Mcp-Session-Id`.

Invariant: a session that somebody uses is used by nobody else (issuer, person or machine, client)
until its binding ends, whatever the method of the request and the spelling of the id.

A session belongs to a person's client, not to one grant of it: a client that logs in anew while
its session is open, which a 403 insufficient_scope makes it do, goes on with that session.
"""

import re
from typing import Final

from authz.core.detail import Detail
from authz.core.ledger import Session
from authz.core.limits import digest
from authz.core.policy import Server
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError

HEADER: Final = "mcp-session-id"
# MCP 2025-11-25, "Session Management": visible ASCII. Some servers keep their state in it.
_ID: Final = re.compile(r"[\x21-\x7e]{1,4096}")


def named_session(headers: dict[str, str]) -> str | None:
    """Return the session that the request names; None where it names none.

    Raises:
        RefusedError: MALFORMED_REQUEST for what cannot be a session id.
    """
    sent = headers.get(HEADER)
    if not sent:
        return None
    if _ID.fullmatch(sent) is None:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.SESSION_ID_MALFORMED)
    return sent


def session_of(sent: str, server: Server, principal: Principal) -> Session:
    """Return the binding of a session to this principal; ids of two servers never collide."""
    person = _person(principal)
    named = principal.client_id if principal.login is None else principal.login.client_id
    return Session(
        id=digest(server.name, sent),
        owner=digest(*person, named),
        person=digest(*person),
        lifetime=server.session_lifetime,
    )


def _person(principal: Principal) -> tuple[str, str, str]:
    if principal.subject is None:
        return principal.issuer, "client", principal.client_id
    return principal.issuer, "person", principal.subject
