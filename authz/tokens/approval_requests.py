"""Requests for approvals as sealed values: the text that Redis keeps, and the link to it.

Invariant: the link holds a name alone; what does not open, or is not whole, is refused.
"""

from typing import Final

from authz.core.approval import Approval
from authz.core.exact_call import LONGEST, ExactCall
from authz.core.step_up import ApprovalRequest
from authz.tokens.sealing import NotSealedError, Sealer
from authz.tokens.tickets import LIFETIME, ticket_of, ticket_value

_REQUEST: Final = "approval-request"
_LINK: Final = "approval-ticket"
# A character of JSON is two bytes of the text at least, or six of an escape, and sealing adds a
# third; besides there are names.
_LONGEST: Final = 8 * LONGEST


def seal_request(sealer: Sealer, request: ApprovalRequest) -> str:
    """Return a request as Redis keeps it."""
    value = {
        "ticket": ticket_value(request.ticket),
        "lifetime": request.approval.lifetime,
        "call": None if request.call is None else request.call.text,
        "steps_up": request.steps_up,
    }
    return sealer.seal(_REQUEST, value, LIFETIME)


def open_request(sealer: Sealer, text: str) -> ApprovalRequest:
    """Return the request of a text.

    Raises:
        NotSealedError: where it is none, or too old.
    """
    value = sealer.open(_REQUEST, text, longest=_LONGEST)
    try:
        lifetime, call = value["lifetime"], value["call"]
        return ApprovalRequest(
            ticket_of(value["ticket"]),
            Approval(None if lifetime is None else int(lifetime)),
            None if call is None else ExactCall(str(call)),
            steps_up=value["steps_up"] is True,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise NotSealedError from error


def seal_name(sealer: Sealer, name: str) -> str:
    """Return the name of a request as a text for a link."""
    return sealer.seal(_LINK, {"of": name}, LIFETIME)


def open_name(sealer: Sealer, text: str) -> str:
    """Return the name of the request that a link leads to.

    Raises:
        NotSealedError: where it is no link, or too old.
    """
    name = sealer.open(_LINK, text).get("of")
    if not isinstance(name, str):
        raise NotSealedError
    return name
