"""`authz check-config`: every mistake at once."""

import argparse
import os
import sys

from authz.cli.common import DONE, WRONG, command, config_argument, print_problems
from authz.config.load import load
from authz.config.notes import notes
from authz.config.problems import ConfigError

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
        help="leave secret files and the certificate unread, as for paths that are in a container",
    )
    parser.add_argument("--json", action="store_true", help="problems as a JSON list")


def run(arguments: argparse.Namespace) -> int:
    """Print the problems; 2 where one is an error."""
    here = not arguments.no_secrets
    try:
        settings = load(arguments.config, os.environ, secrets=here, tls=here)
    except ConfigError as errors:
        print_problems(errors.problems, as_json=arguments.json)
        if here and not arguments.json and _is_right_without_files(arguments):
            print(
                "only files that it names are in the way; where they are elsewhere, as in a"
                " container: --no-secrets",
                file=sys.stderr,
            )
        return WRONG
    print_problems(settings.warnings, as_json=arguments.json)
    if not arguments.json:
        servers = ", ".join(settings.policy.servers)
        print(f"{arguments.config} is right: {len(settings.policy.servers)} server(s): {servers}")
        for note in notes(settings.config):
            print(f"note: {note}")
    return DONE


def _is_right_without_files(arguments: argparse.Namespace) -> bool:
    try:
        load(arguments.config, os.environ, secrets=False)
    except ConfigError:
        return False
    return True
