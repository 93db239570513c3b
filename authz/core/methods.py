"""The methods of MCP: what each one is, which thing it names, and in which era it exists.

What depends on a method (its shape, its mirror headers, what a limit charges) is read from this
one table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class Role(Enum):
    """Name what a method is for.

    HANDSHAKE begins, keeps or tunes a session; LIST tells what a server has; OPERATION does
    something on somebody's behalf; NOTIFICATION tells and gets no response.
    """

    HANDSHAKE = "handshake"
    LIST = "list"
    OPERATION = "operation"
    NOTIFICATION = "notification"


class Counts(Enum):
    """Name which messages a limit charges.

    OPERATIONS are what a person would call a request: tools/call and whatever else has the role
    OPERATION, unknown methods too. HANDSHAKES are the rest: what begins, keeps, lists and ends.
    STREAMS wait for a server's notifications; they are operations or handshakes besides.
    """

    ALL = "all"
    OPERATIONS = "operations"
    HANDSHAKES = "handshakes"
    STREAMS = "streams"


@dataclass(frozen=True, slots=True)
class McpMethod:
    """Describe one method of MCP.

    Which methods are judged by the rules of the tool, prompt or resources that they name stands in
    `operations`.

    Attributes:
        name: as in the JSON-RPC member `method`.
        role: what it is for.
        named: the member of params that names its thing, which the header Mcp-Name repeats; None
            where it names nothing.
        longest: the longest name in characters where the thing must be named, and the result may
            ask for input; 0 where the name is compared only if the header was sent.
        legacy, modern: whether it exists before 2026-07-28, and in 2026-07-28 or its extensions.
        by_client: whether clients send it; the others are sent by servers.
        continues: whether it returns or goes on with what a tool was asked to do: where tools are
            named it is judged by the rules of all of them, since nobody here knows of which tool.
    """

    name: str
    role: Role
    named: str | None = None
    longest: int = 0
    legacy: bool = True
    modern: bool = True
    by_client: bool = True
    continues: bool = False

    @property
    def is_notification(self) -> bool:
        """Tell whether it comes without an id."""
        return self.role is Role.NOTIFICATION


TOOLS_CALL: Final = "tools/call"
PROMPTS_GET: Final = "prompts/get"
COMPLETE: Final = "completion/complete"
# Its answer is a stream of notifications that only the client or a time limit ends (2026-07-28).
LISTEN: Final = "subscriptions/listen"
# Reserved for notifications: nothing else may begin so.
NOTIFICATIONS: Final = "notifications/"

_TABLE: Final = (
    McpMethod(TOOLS_CALL, Role.OPERATION, "name", 256),
    McpMethod(PROMPTS_GET, Role.OPERATION, "name", 256),
    McpMethod("resources/read", Role.OPERATION, "uri", 8192),
    McpMethod(COMPLETE, Role.OPERATION),
    # The two below were replaced by subscriptions/listen.
    McpMethod("resources/subscribe", Role.OPERATION, "uri", modern=False),
    McpMethod("resources/unsubscribe", Role.OPERATION, "uri", modern=False),
    McpMethod(LISTEN, Role.OPERATION, legacy=False),
    # 2025-11-25, "Tasks", and the tasks extension (SEP-2663). The extension requires Mcp-Name,
    # which not every official client obeys yet.
    McpMethod("tasks/get", Role.OPERATION, "taskId", continues=True),
    McpMethod("tasks/result", Role.OPERATION, "taskId", continues=True),
    McpMethod("tasks/cancel", Role.OPERATION, "taskId", continues=True),
    McpMethod("tasks/update", Role.OPERATION, "taskId", legacy=False, continues=True),
    McpMethod("tools/list", Role.LIST),
    McpMethod("prompts/list", Role.LIST),
    McpMethod("resources/list", Role.LIST),
    McpMethod("resources/templates/list", Role.LIST),
    McpMethod("tasks/list", Role.LIST, continues=True),
    McpMethod("initialize", Role.HANDSHAKE, modern=False),
    McpMethod("ping", Role.HANDSHAKE, modern=False),
    McpMethod("logging/setLevel", Role.HANDSHAKE, modern=False),
    McpMethod("server/discover", Role.HANDSHAKE, legacy=False),
    McpMethod("notifications/initialized", Role.NOTIFICATION, modern=False),
    McpMethod("notifications/cancelled", Role.NOTIFICATION),
    # Of 2025-11-25 and before; official clients send the two below in 2026-07-28 all the same.
    McpMethod("notifications/progress", Role.NOTIFICATION, modern=False),
    McpMethod("notifications/roots/list_changed", Role.NOTIFICATION, modern=False),
    McpMethod("notifications/tasks/status", Role.NOTIFICATION),
    # What servers ask of clients. No client sends it; known, so that no extension is called alike.
    McpMethod("elicitation/create", Role.OPERATION, by_client=False),
    McpMethod("roots/list", Role.OPERATION, by_client=False),
    McpMethod("sampling/createMessage", Role.OPERATION, by_client=False),
)

METHODS: Final[Mapping[str, McpMethod]] = MappingProxyType({each.name: each for each in _TABLE})


def counted(method: str | None) -> Counts:
    """Return which limits a message is charged to, besides those that count everything.

    Args:
        method: its method; "" of a response, None where there is no message (GET, DELETE).
    """
    if not method or role(method) is not Role.OPERATION:
        return Counts.HANDSHAKES
    return Counts.OPERATIONS


def role(method: str) -> Role:
    """Return what a method is for; of one that MCP does not have, the role that costs most."""
    known = METHODS.get(method)
    return Role.OPERATION if known is None else known.role
