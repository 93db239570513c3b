"""`authz client-config`: what to paste into an MCP client."""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Final

from authz.cli.common import DONE, WRONG, command, config_argument
from authz.config.load import Settings, load
from authz.setup.clients import FORMATS, NoClientError, missing_redirects, servers_for

_EXAMPLES: Final = """\
examples:
  authz client-config claude authz.yaml              lines for a terminal
  authz client-config vscode authz.yaml > .vscode/mcp.json
  authz client-config cursor authz.yaml --server notes
  authz client-config inspector authz.yaml --client desktop    with login: direct

What to paste is on standard output; where it belongs is on standard error.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(
        commands, "client-config", "print what to paste into an MCP client", run, _EXAMPLES
    )
    parser.add_argument("kind", choices=tuple(FORMATS), help="which client")
    config_argument(parser)
    parser.add_argument("--server", metavar="NAME", help="one server (default: all it may use)")
    parser.add_argument(
        "--client", metavar="CLIENT_ID", help="its id in authz.yaml, where login is direct"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    settings = load(arguments.config, os.environ, secrets=False)
    kind = FORMATS[arguments.kind]
    try:
        found = servers_for(settings.config, arguments.client, arguments.server)
    except NoClientError as error:
        print(f"authz: {error}", file=sys.stderr)
        return WRONG
    print(f"{kind.title}: {kind.where}", file=sys.stderr)
    for line in _remarks(settings, arguments):
        print(line, file=sys.stderr)
    print(kind.write(found), end="")
    return DONE


def _remarks(settings: Settings, arguments: argparse.Namespace) -> Iterator[str]:
    missing = missing_redirects(settings.config, arguments.client, FORMATS[arguments.kind])
    if missing:
        yield "Into redirect_uris of this client in authz.yaml, then authz authelia-config again:"
        yield from (f"  - {uri}" for uri in missing)
