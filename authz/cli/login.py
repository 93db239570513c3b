"""`authz login`: log a person in from the terminal, to try a server with."""

import asyncio
import json
import os
import shlex
import ssl
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from authz.authelia.clients import GROUPS, asks_groups
from authz.cli.common import DONE, FAILED, FILE, CommandError, command, config_argument
from authz.cli.oauth_login.log_in import log_in
from authz.cli.oauth_login.request import OAuthLoginError, Wanted
from authz.config.files import write_atomically
from authz.config.load import Settings, load
from authz.core.policy import MODERN
from authz.server.sample import CLIENT_INFO, message
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import issuer_client

_FIRST: Final = "mcp"  # what `authz authelia-config` calls the client of a file that names none
_PATIENCE: Final = 300
_CONNECT: Final = 10.0
_EXAMPLES: Final = """\
examples:
  authz login authz.yaml --server files
  authz login authz.yaml --server files --client claude --no-browser
  authz login authz.yaml --server files --print-token | authz explain authz.yaml \\
    --server files --token-file -
Where authz.yaml has a front door the log-in goes through it, and needs no client: it registers.
With --client it is one of authz.yaml; one with login: direct has to be public at the issuer, with
the redirect URI http://127.0.0.1/callback (any port). The token goes to a file of mode 600, and is
printed with --print-token only.
"""


@command("login", _EXAMPLES)
@config_argument
@click.option("--server", metavar="NAME", help="Default: the only one.")
@click.option("--client", metavar="ID", help="Default: none at the front door, else the only one.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="In place of those of the server and its tools; may be repeated.",
)
@click.option("--no-browser", is_flag=True, help="Print the link, open nothing.")
@click.option(
    "--timeout",
    type=float,
    default=_PATIENCE,
    metavar="SECONDS",
    help=f"How long to wait for the log-in (default: {_PATIENCE}).",
)
@click.option("--internal", is_flag=True, help="Reach it by issuer.internal.")
@click.option("--cacert", metavar="FILE", help="The authority to trust (PEM).")
@click.option("--output", type=FILE, metavar="FILE", help="Default: ~/.cache/authz/SERVER.token.")
@click.option("--print-token", is_flag=True, help="The token on standard output, and no file.")
def run(
    *,
    config: Path,
    server: str | None,
    client: str | None,
    scopes: tuple[str, ...],
    no_browser: bool,
    timeout: float,
    internal: bool,
    cacert: str | None,
    output: Path | None,
    print_token: bool,
) -> int:
    """Log in, keep the token, and print a line to try it with."""
    if output is not None and print_token:
        raise click.UsageError("--output and --print-token exclude each other")
    settings = load(config, os.environ, secrets=False)
    issuer, gateway = settings.config.issuer, settings.config.gateway
    try:
        name = _server(settings, server)
        wanted = _wanted(settings, name, client, list(scopes) or None)
        address = (
            IssuerAddress(gateway.url)
            if by_front_door(settings, client)
            else IssuerAddress(issuer.url, issuer.internal if internal else None)
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    trust = ssl.create_default_context(cafile=cacert)

    def show(link: str) -> None:
        if no_browser or not webbrowser.open(link):
            print(f"open this in a browser on this machine:\n  {link}", file=sys.stderr)
        else:
            print("a browser was opened; log in there", file=sys.stderr)

    async def granted() -> str:
        async with issuer_client(timeout=_CONNECT, verify=trust) as http:
            found = await log_in(wanted, address, http, show, timeout)
        life = "" if found.seconds is None else f", for {found.seconds} s"
        held = " ".join(wanted.scopes if found.scopes is None else found.scopes) or "none"
        print(f"logged in{life}; scopes: {held}", file=sys.stderr)
        return found.token

    try:
        token = asyncio.run(granted())
    except OAuthLoginError as failed:
        raise CommandError(str(failed), FAILED) from None
    if print_token:
        print(token)
        return DONE
    path = (output or _default(name, os.environ)).absolute()
    keep(token, path)
    print(f"the token is in {path}; to try it:", file=sys.stderr)
    print(curl(settings, name, path, cacert))
    return DONE


def _server(settings: Settings, name: str | None) -> str:
    servers = settings.config.servers
    if name is None and len(servers) == 1:
        return next(iter(servers))
    if name is None or name not in servers:
        raise ValueError(f"--server is one of: {', '.join(servers)}")
    return name


def _wanted(
    settings: Settings, server: str, client: str | None, scopes: list[str] | None
) -> Wanted:
    """Return what to ask for.

    Raises:
        ValueError: where authz.yaml does not name the client, or names no loopback URI of it.
    """
    config = settings.config
    if by_front_door(settings, client):
        return _wanted_of_front_door(settings, server, client, scopes)
    people, any_goes = list(config.direct), not config.clients and config.login == "direct"
    if client is None and len(people) <= 1:
        client = people[0] if people else _FIRST
    if client is None or (client not in people and not any_goes):
        raise ValueError(_no_such_client(settings, people))
    known = config.clients.get(client)
    if scopes is None:
        scopes = config.scopes_of(server)
        if known is not None and known.scopes is not None:
            scopes = [scope for scope in scopes if scope in known.scopes]
        if asks_groups(config, [server]):
            scopes.append(GROUPS)
    path = _path(client, () if known is None else tuple(known.redirect_uris))
    return Wanted(client, config.resource(server), tuple(dict.fromkeys(scopes)), path)


def _no_such_client(settings: Settings, people: list[str]) -> str:
    """Say which clients there are, or what would do without one."""
    if by_front_door(settings, None):
        known = [name for name in settings.config.named if by_front_door(settings, name)] + people
        words = f"--client is one of: {', '.join(known)}" if known else "authz.yaml names no client"
        return f"{words}; leave --client out to log in at the front door, which needs none"
    nobody = (
        "none: no client of authz.yaml logs people in at the issuer itself; add one there,"
        " clients.NAME: {login: direct, redirect_uris: [http://127.0.0.1/callback]}, and at"
        " Authelia what `authz authelia-config` then prints"
    )
    return f"--client is one of: {', '.join(people) or nobody}"


def by_front_door(settings: Settings, client: str | None) -> bool:
    """Tell whether the log-in goes to the gateway, as those of other clients do.

    It does where there is a front door, unless a client is named that logs in at the issuer.
    """
    config = settings.config
    if client is None:
        return config.login == "front_door" and config.logs_in
    return client in config.named and config.login_of(client) == "front_door"


def _wanted_of_front_door(
    settings: Settings, server: str, client: str | None, scopes: list[str] | None
) -> Wanted:
    """Return what to ask the gateway for; a client that is not configured registers.

    Without --scope the scopes of the server and its tools are asked for; the front door gives what
    the client may have of them.
    """
    config = settings.config
    if scopes is None:
        scopes = config.scopes_of(server)
    uris = () if client is None else tuple(config.clients[client].redirect_uris)
    path = "/callback" if client is None else _path(client, uris)
    return Wanted(client or "", config.resource(server), tuple(scopes), path)


def _path(client: str, redirect_uris: tuple[str, ...]) -> str:
    if not redirect_uris:
        return "/callback"
    for uri in redirect_uris:
        parts = urlsplit(uri)
        if (parts.scheme, parts.hostname) == ("http", "127.0.0.1"):
            return parts.path or "/"
    raise ValueError(
        f"clients.{client}.redirect_uris has none on 127.0.0.1: add http://127.0.0.1/callback, "
        "there and at the issuer"
    )


def _default(server: str, env: Mapping[str, str]) -> Path:
    cache = env.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else Path.home() / ".cache") / "authz"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{server}.token"


def keep(token: str, path: Path) -> None:
    """Write a token to a file that only its owner can read, in place of what was there.

    Raises:
        OSError: where that is not possible.
    """
    # A new file, and never one that was there: its mode, and who has it open, are not ours.
    write_atomically(path, f"{token}\n")


def curl(settings: Settings, server: str, token: Path, cacert: str | None = None) -> str:
    """Return a line for a shell that tries the server.

    The token goes from its file through a pipe: an argument could be read by every user.
    """
    versions = settings.config.servers[server].versions
    modern = MODERN in versions
    headers, body = message(versions, "tools/list" if modern else "initialize")
    if not modern:
        client = {"capabilities": {}, "clientInfo": CLIENT_INFO}
        body["params"] = {"protocolVersion": max(versions), **client}
    told = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    trust = [] if cacert is None else ["--cacert", cacert]
    sent = ["-d", json.dumps(body, separators=(",", ":"))]
    resource = settings.config.resource(server)
    command_line = shlex.join(["curl", "-sS", "-H", "@-", *told, *trust, *sent, resource])
    return f"sed 's/^/Authorization: Bearer /' {shlex.quote(str(token))} | {command_line}"
