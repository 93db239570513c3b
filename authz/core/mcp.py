"""One MCP message, read strictly from a body and its mirror headers."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Name the shapes of a JSON-RPC message."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Message:
    """Hold what a decision needs of one JSON-RPC message.

    Attributes:
        kind: request (has an id), notification, or response to the server's own request.
        method: the method; "" for a response.
        id: the id to repeat in an answer; None for a notification.
        tool: `params.name` of a tools/call; None for every other method.
        version: the MCP protocol version that it speaks: the header's, which equals the body's;
            None for a legacy message without the header.
        elicits_url: whether the client declared URL elicitation in this message.
    """

    kind: Kind
    method: str
    id: str | int | None
    tool: str | None
    version: str | None
    elicits_url: bool = False
