"""Configuration of MCP clients, in each client's own format, from authz.yaml.

With the front door a client needs the URL and nothing else. For `login: direct` it needs its id at
the issuer, and the issuer needs a redirect URI of the client: what authz.yaml lacks is reported.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.authelia.clients import usable_servers
from authz.config.model import Config

OFFLINE: Final = "offline_access"


class NoClientError(ValueError):
    """Say which client has to be named, and what there is."""


@dataclass(frozen=True, slots=True)
class ClientServer:
    """Hold one MCP server as a client is told of it.

    Attributes:
        name, url: what it is called, and where it is.
        client_id: the client's id at the issuer; None where it registers by itself.
        scopes: what the server and its tools ask for.
    """

    name: str
    url: str
    client_id: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClientFormat:
    """Describe one client.

    Attributes:
        title: its name.
        where: what to do with what is printed.
        redirect_uris: what it calls back, for its entry in authz.yaml.
        write: what to paste.
        trust: how it comes to trust a private authority; `{path}` is its file, for a shell.
    """

    title: str
    where: str
    redirect_uris: tuple[str, ...]
    write: Callable[[list[ClientServer]], str]
    trust: str


# A port that Claude Code listens on where it is told a client id; any free one would do.
_CLAUDE_PORT: Final = 43117


def _claude(servers_for: list[ClientServer]) -> str:
    return "".join(f"{shlex.join(_claude_line(server))}\n" for server in servers_for)


def _claude_line(server: ClientServer) -> Iterator[str]:
    yield from ("claude", "mcp", "add", "--transport", "http")
    if server.client_id is not None:
        yield from ("--client-id", server.client_id, "--callback-port", str(_CLAUDE_PORT))
    yield from (server.name, server.url)


def _vscode(servers_for: list[ClientServer]) -> str:
    def entry(server: ClientServer) -> dict[str, Any]:
        oauth = {} if server.client_id is None else {"oauth": {"clientId": server.client_id}}
        return {"type": "http", "url": server.url, **oauth}

    return _json({"servers": {server.name: entry(server) for server in servers_for}})


def _cursor(servers_for: list[ClientServer]) -> str:
    def entry(server: ClientServer) -> dict[str, Any]:
        if server.client_id is None:
            return {"url": server.url}
        scopes = [*server.scopes, OFFLINE]
        return {"url": server.url, "auth": {"CLIENT_ID": server.client_id, "scopes": scopes}}

    return _json({"mcpServers": {server.name: entry(server) for server in servers_for}})


def _inspector(servers_for: list[ClientServer]) -> str:
    def entry(server: ClientServer) -> dict[str, Any]:
        found = {"type": "http", "url": server.url, "protocolEra": "auto"}
        if server.client_id is None:
            return found
        scopes = " ".join((*server.scopes, OFFLINE))
        return {**found, "oauth": {"clientId": server.client_id, "scopes": scopes}}

    return _json({"mcpServers": {server.name: entry(server) for server in servers_for}})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


FORMATS: Final[Mapping[str, ClientFormat]] = {
    "claude": ClientFormat(
        "Claude Code",
        "Run it in a terminal, then /mcp in Claude Code logs in. In claude.ai the same URL goes "
        "into Settings, Connectors, Add custom connector"
        " (with login: direct, the client id under Advanced settings).",
        (
            f"http://localhost:{_CLAUDE_PORT}/callback",
            "https://claude.ai/api/mcp/auth_callback",
        ),
        _claude,
        "start it with NODE_EXTRA_CA_CERTS={path} in its environment, in the line of the log-in too"
        "; claude.ai trusts no private authority",
    ),
    "vscode": ClientFormat(
        "VS Code",
        "Into .vscode/mcp.json of a workspace, or the user's mcp.json (MCP: Open User "
        "Configuration).",
        ("http://127.0.0.1:33418/", "https://vscode.dev/redirect"),
        _vscode,
        "put {path} into the system's store of authorities (the browser has its own), and start VS "
        "Code anew",
    ),
    "cursor": ClientFormat(
        "Cursor",
        "Into ~/.cursor/mcp.json, or .cursor/mcp.json of a project.",
        ("cursor://anysphere.cursor-mcp/oauth/callback",),
        _cursor,
        "put {path} into the system's store of authorities (the browser has its own), or start "
        "Cursor with NODE_EXTRA_CA_CERTS={path} in its environment",
    ),
    "inspector": ClientFormat(
        "MCP Inspector",
        "Into a file, then: npx @modelcontextprotocol/inspector --catalog FILE",
        ("http://localhost:6274/oauth/callback", "http://127.0.0.1:6276/oauth/callback"),
        _inspector,
        "start it with NODE_EXTRA_CA_CERTS={path} in its environment; the browser has a store of "
        "its own",
    ),
}


def servers_for(config: Config, client_id: str | None, only: str | None) -> list[ClientServer]:
    """Return the servers that a client is told of.

    Args:
        config: authz.yaml.
        client_id: which client of authz.yaml it is; None for the only one, or none.
        only: one server; None for all that the client may use.

    Raises:
        NoClientError: where a client or a server has to be named, or is not there.
    """
    if only is not None and only not in config.servers:
        raise NoClientError(f"there is no server {only}; there is {_list(config.servers)}")
    if client_id is not None and client_id not in config.named:
        raise NoClientError(f"there is no client {client_id} under clients in authz.yaml")
    named = client_id if client_id is not None else _only(config)
    # By the front door a configured client is known by what it is, not by what it is told.
    said = None if named is None or config.login_of(named) == "front_door" else named
    chosen = (
        list(config.servers)
        if named is None
        else usable_servers(config, named, config.clients[named])
    )
    return [
        ClientServer(name, config.resource(name), said, tuple(config.scopes_of(name)))
        for name in chosen
        if only in {None, name}
    ]


def missing_redirects(config: Config, client_id: str | None, kind: ClientFormat) -> tuple[str, ...]:
    """Return what the client calls back and authz.yaml does not know.

    For `login: direct` the issuer refuses them, but for another port of 127.0.0.1.
    """
    named = client_id if client_id is not None else _only(config)
    if named is None or config.login_of(named) == "front_door":
        return ()
    known = config.clients[named].redirect_uris
    return tuple(uri for uri in kind.redirect_uris if uri not in known)


def _only(config: Config) -> str | None:
    """Return the client that is meant where none is named; None where it registers by itself.

    Raises:
        NoClientError: where there are several, or none that has people.
    """
    if config.login == "front_door":
        return None
    people = list(config.direct)
    if len(people) == 1:
        return people[0]
    if not people:
        raise NoClientError("with login: direct a client has an id; name it under clients")
    raise NoClientError(f"which client is it? Write --client, one of {_list(people)}")


def _list(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(names)
