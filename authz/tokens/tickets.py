"""Step-up tickets as sealed values in a link, so that a refusal stores nothing.

Invariant: a ticket that does not open, or lacks a member, is refused.
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.core.second_factor import Method, StepUpNeed
from authz.core.step_up import StepUpTicket
from authz.tokens.sealing import NotSealedError, Sealer

LIFETIME: Final = 600  # seconds in which the person may follow the link
_PURPOSE: Final = "step-up-ticket"
_TEXTS: Final = ("issuer", "subject", "grant", "client", "account", "server")
# Not in tickets of a version before.
_LATER: Final = ("ends_at", "document_host", "prompt", "resource")


def seal_ticket(sealer: Sealer, ticket: StepUpTicket) -> str:
    """Return the ticket as a text for a link."""
    return sealer.seal(_PURPOSE, ticket_value(ticket), LIFETIME)


def open_ticket(sealer: Sealer, text: str) -> StepUpTicket:
    """Return the ticket of a link.

    Raises:
        NotSealedError: where it is none, or has expired.
    """
    return ticket_of(sealer.open(_PURPOSE, text))


def ticket_value(ticket: StepUpTicket) -> dict[str, Any]:
    """Return the ticket as JSON members, also for values that hold one."""
    value: dict[str, Any] = {name: getattr(ticket, name) for name in (*_TEXTS, *_LATER)}
    return value | {
        "tool": ticket.tool,
        "method": int(ticket.need.method),
        "age": ticket.need.max_login_age,
        "at": ticket.at,
    }


def ticket_of(value: Mapping[str, Any]) -> StepUpTicket:
    """Return the ticket of JSON members.

    Raises:
        NotSealedError: where a member is missing or wrong.
    """
    try:
        return StepUpTicket(
            **{name: value[name] for name in _TEXTS},
            **{name: value.get(name, "") for name in _LATER},
            tool=value["tool"],
            need=StepUpNeed(Method(value["method"]), value["age"]),
            at=value["at"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise NotSealedError from error
