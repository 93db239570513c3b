"""`authz check-config`: every mistake at once."""

import argparse
import os

from authz.cli.common import DONE, command, config_argument, print_problems
from authz.config.load import load

_EXAMPLES = """\
examples:
  authz check-config
  authz check-config /etc/authz/authz.yaml --json
  authz check-config deploy/authz.yaml --no-secrets    of a folder made by `authz init`
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(
        commands, "check-config", "check authz.yaml and say all that is wrong", run, _EXAMPLES
    )
    config_argument(parser)
    parser.add_argument(
        "--no-secrets",
        action="store_true",
        help="leave secret files unread, as for paths that are in a container",
    )
    parser.add_argument("--json", action="store_true", help="problems as a JSON list")


def run(arguments: argparse.Namespace) -> int:
    """Print the problems; 2 where one is an error."""
    settings = load(arguments.config, os.environ, secrets=not arguments.no_secrets)
    print_problems(settings.warnings, as_json=arguments.json)
    if not arguments.json:
        servers = ", ".join(settings.policy.servers)
        print(f"{arguments.config} is right: {len(settings.policy.servers)} server(s): {servers}")
    return DONE
