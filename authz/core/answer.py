"""What a decision becomes on the wire of HTTP: an answer to the client, or changes to its request.

Law: plain values. Who may see what is decided where they are built; what HTTP allows in them is
checked where they are encoded (authz/envoy/codec.py).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

# The names of Upstream.metadata, which Envoy's local replies read (envoy/render/local_replies.py):
# the JSON of the request's id, how it is told (a Form), and under which id the log has it; and
# the web origin that sent the request, one of `Policy.origins`.
RPC_ID: Final = "id"
FORM: Final = "form"
REQUEST_ID: Final = "request_id"
ORIGIN: Final = "origin"


class Form(Enum):
    """Name what a failure is told as: an error, or a result of tools/call of either era."""

    ERROR = "error"
    RESULT = "result"
    MODERN_RESULT = "modern_result"


# The id and the media type of an error to a request whose id is not known (decision 11). At a null,
# as JSON-RPC has it, rmcp waits for ever and Go ends its session; an empty id is no request's.
NOBODY: Final = ""
NOBODY_TYPE: Final = "application/json-rpc"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Answer the client in place of the upstream: every denial, whatever its HTTP status.

    Attributes:
        status: the HTTP status, 200 to 599; a denial may be a 200 (an input-required result).
        headers: name and value, each name once; values in printable ASCII.
        body: UTF-8.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Upstream:
    """Let the request go on, changed.

    Attributes:
        set_headers: name and value for the upstream, in place of what the client sent.
        remove_headers: names that the upstream never sees; none of them is also set.
        response_headers: name and value for the client, in place of what the upstream sent.
        judged: name and value for the upstream that differ from request to request: of what the
            client may have sent twice, and the signed identity.
        lasts: milliseconds after which the whole exchange ends; 0 where nothing is said of it.
        metadata: name and value for Envoy: what its own answer needs where it cannot reach the
            upstream, or does not pass on what that said.
    """

    set_headers: tuple[tuple[str, str], ...]
    remove_headers: tuple[str, ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    judged: tuple[tuple[str, str], ...] = ()
    lasts: int = 0
    metadata: tuple[tuple[str, str], ...] = ()
