"""`authz identity-keys`: the key set with which MCP servers verify the signed identity."""

import argparse
import os
import sys
from pathlib import Path

from authz.cli.common import DONE, FAILED, command, config_argument
from authz.config.key_files import make_key
from authz.config.load import load
from authz.tokens.identity import key_set

_EXAMPLES = """\
examples:
  authz identity-keys authz.yaml > authz-identity.json      for the MCP servers, and nobody else
  authz identity-keys authz.yaml --make-key                 also makes the private key
"""
_FIELD = "gateway.identity_key_file"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "print the key set with which MCP servers verify who calls"
    parser = command(commands, "identity-keys", words, run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument(
        "--make-key",
        action="store_true",
        help=f"make {_FIELD} where there is none (P-256, mode 600)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the public half."""
    gateway = load(arguments.config, os.environ, secrets=False).config.gateway
    file, other = gateway.identity_key_file, gateway.identity_other_key_file
    if file is None:
        mend = f"write {_FIELD}: /run/secrets/identity.pem, and run this with --make-key"
        print(f"authz: {arguments.config} has no {_FIELD}; {mend}", file=sys.stderr)
        return FAILED
    try:
        if arguments.make_key:
            make_key(Path(file))
        files = [file] if other is None else [file, other]
        keys = key_set(*(Path(each).read_text("ascii") for each in files))
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        print(f"authz: {_FIELD}: {words}; --make-key makes one", file=sys.stderr)
        return FAILED
    print(keys.decode(), end="")
    return DONE
