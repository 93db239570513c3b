"""What a decision becomes on the wire of HTTP: an answer to the client, or changes to its request.

Law: plain values. Who may see what is decided where they are built; what HTTP allows in them is
checked where they are encoded (authz/envoy/codec.py).
"""

from dataclasses import dataclass


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
        judged: name and value for the upstream, once, of what the client may have sent twice.
        lasts: milliseconds after which the whole exchange ends; 0 where nothing is said of it.
    """

    set_headers: tuple[tuple[str, str], ...]
    remove_headers: tuple[str, ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    judged: tuple[tuple[str, str], ...] = ()
    lasts: int = 0
