"""A request as a well-behaved MCP client sends it, for those who try a server or ask why."""

import json
from base64 import b64encode
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from authz import __version__
from authz.core.methods import METHODS
from authz.core.policy import MODERN, Server
from authz.core.request import HttpRequest

CLIENT_INFO: Final = {"name": "authz", "version": __version__}
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}


def http_request(
    server: Server,
    what: str,
    name: str | None,
    token: str,
    address: str = "",
    *,
    arguments: Mapping[str, object] = MappingProxyType({}),
) -> HttpRequest:
    """Return a request as a client of the newest protocol that the server accepts sends it.

    Args:
        server: which one.
        what: an MCP method; `GET` or `DELETE` for those of HTTP.
        name: of the tool or prompt, or the resource's URI; None where the method names none.
        token: the access token.
        address: the client's, for limits per address.
        arguments: of a tool or prompt.
    """
    headers = {"authorization": f"Bearer {token}"}
    body = b""
    method = what
    if what not in {"GET", "DELETE"}:
        method = "POST"
        sent, members = message(server.versions, what, name, arguments=arguments)
        headers |= sent
        body = json.dumps(members).encode("ascii")
    context = {"server": server.name}
    return HttpRequest(method, "/", headers, body, context, address, "")


def message(
    versions: Collection[str],
    method: str,
    name: str | None = None,
    cursor: str | None = None,
    *,
    arguments: Mapping[str, object] = MappingProxyType({}),
) -> tuple[dict[str, str], dict[str, object]]:
    """Return the headers and the body of a message, in the newest of some versions.

    Args:
        versions: of MCP.
        method: of MCP.
        name: as of `http_request`.
        cursor: of the page, for a list.
        arguments: of a tool or prompt.
    """
    version = max(versions)
    known = METHODS.get(method)
    member = "name" if known is None or known.named is None else known.named
    params: dict[str, object] = {}
    if name is not None:
        params = {member: name}
        if member == "name":
            params["arguments"] = dict(arguments)
    if cursor is not None:
        params["cursor"] = cursor
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": version,
    }
    if version == MODERN:
        params["_meta"] = _META
        headers["mcp-method"] = method
        if name is not None:
            headers["mcp-name"] = name if name.isascii() else _encoded(name)
    return headers, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _encoded(name: str) -> str:
    """Return a name as MCP 2026-07-28, "Value Encoding", writes it."""
    return f"=?base64?{b64encode(name.encode()).decode()}?="
