"""`authz authelia-config`: the part of Authelia's configuration that authz.yaml implies."""

import argparse
import os
import sys
from pathlib import Path

from authz.authelia import implied
from authz.authelia.keys import make_key, public_half
from authz.cli.common import DONE, FAILED, command, config_argument, print_problems
from authz.config.load import load

_EXAMPLES = """\
examples:
  authz authelia-config authz.yaml > authz.yml
  authelia --config configuration.yml,authz.yml
  authz authelia-config authz.yaml --make-key     also makes issuer.introspection.key_file
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "print the part of Authelia's configuration that authz.yaml implies"
    parser = command(commands, "authelia-config", words, run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument("--json", action="store_true", help="the values as JSON, without comments")
    parser.add_argument(
        "--make-key",
        action="store_true",
        help="make issuer.introspection.key_file where there is none (P-256, mode 600)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print it; a private key is made only where one is asked for, and never printed."""
    settings = load(arguments.config, os.environ, secrets=False)
    introspection = settings.config.issuer.introspection
    if not arguments.json:
        print_problems(settings.warnings)
    file = None if introspection is None else introspection.key_file
    if arguments.make_key:
        if file is None:
            print("authz: authz.yaml has no issuer.introspection.key_file", file=sys.stderr)
            return FAILED
        make_key(Path(file))
    result = implied(settings.config, None if file is None else public_half(Path(file)))
    print(result.json() if arguments.json else result.yaml(), end="")
    return DONE
