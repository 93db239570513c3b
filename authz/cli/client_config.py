"""`authz client-config`: what to paste into an MCP client."""

import os
import shlex
import sys
from pathlib import Path
from typing import Final

import click

from authz.cli.common import DONE, CommandError, command, config_argument
from authz.config.load import load
from authz.config.location import init_folder
from authz.setup.authority import AUTHORITY
from authz.setup.clients import FORMATS, NoClientError, missing_redirects, servers_for

_EXAMPLES: Final = """\
examples:
  authz client-config claude authz.yaml              lines for a terminal
  authz client-config vscode authz.yaml > .vscode/mcp.json
  authz client-config cursor authz.yaml --server notes
  authz client-config inspector authz.yaml --client desktop    with login: direct

What to paste is on standard output; where it belongs is on standard error.
"""


@command("client-config", _EXAMPLES)
@click.argument("kind", type=click.Choice(tuple(FORMATS)))
@config_argument
@click.option("--server", metavar="NAME", help="One server (default: all it may use).")
@click.option("--client", metavar="CLIENT_ID", help="Its id in authz.yaml, where login is direct.")
def run(*, config: Path, kind: str, server: str | None, client: str | None) -> int:
    """Print it."""
    settings = load(config, os.environ, secrets=False)
    form = FORMATS[kind]
    try:
        found = servers_for(settings.config, client, server)
    except NoClientError as error:
        raise CommandError(str(error)) from None
    print(f"{form.title}: {form.where}", file=sys.stderr)
    if missing := missing_redirects(settings.config, client, form):
        print(
            "Into redirect_uris of this client in authz.yaml, then authz authelia-config again:",
            *(f"  - {uri}" for uri in missing),
            sep="\n",
            file=sys.stderr,
        )
    if (authority := _authority(config)) is not None:
        path = shlex.quote(str(authority))
        print(
            f"The gateway's certificate is of a private authority: {form.trust.format(path=path)}.",
            file=sys.stderr,
        )
    print(form.write(found), end="")
    return DONE


def _authority(config: Path) -> Path | None:
    """Return the authority that clients have to trust; None where nobody made one here."""
    folder = init_folder(config.parent)
    path = None if folder is None else folder / AUTHORITY
    return path if path is not None and path.is_file() else None
