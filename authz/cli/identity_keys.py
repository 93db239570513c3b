"""`authz identity-keys`: the key set with which MCP servers verify the signed identity."""

import os
from pathlib import Path

import click

from authz.cli.common import DONE, FAILED, CommandError, command, config_argument
from authz.config import key_files
from authz.config.load import load
from authz.tokens.identity import key_set

_EXAMPLES = """\
examples:
  authz identity-keys authz.yaml > authz-identity.json      for the MCP servers, and nobody else
  authz identity-keys authz.yaml --make-key                 also makes the private key
"""
_FIELD = "gateway.identity_key_file"


@command("identity-keys", _EXAMPLES)
@config_argument
@click.option(
    "--make-key",
    is_flag=True,
    help=f"Also make {_FIELD} where there is none (P-256, mode 600).",
)
def run(*, config: Path, make_key: bool) -> int:
    """Print the public half."""
    gateway = load(config, os.environ, secrets=False).config.gateway
    file, other = gateway.identity_key_file, gateway.identity_other_key_file
    if file is None:
        fix = f"write {_FIELD}: /run/secrets/identity.pem, and run this with --make-key"
        raise CommandError(f"{config} has no {_FIELD}; {fix}", FAILED)
    try:
        if make_key:
            key_files.make_key(Path(file))
        files = [file] if other is None else [file, other]
        found = key_set(*(Path(each).read_text("ascii") for each in files))
    except (OSError, ValueError) as error:
        message = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError(f"{_FIELD}: {message}; --make-key makes one", FAILED) from None
    print(found.decode(), end="")
    return DONE
