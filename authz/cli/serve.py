"""`authz serve`: the service alone."""

import argparse
import os
import sys

from authz.cli.common import WRONG, command, config_argument

_EXAMPLES = """\
examples:
  authz serve -c /etc/authz/authz.yaml
  authz serve --check unix:/run/authz/check.sock --status 127.0.0.1:9464
signals:
  SIGTERM  answer what is in flight, then end
  SIGHUP   read authz.yaml again; one with an error changes nothing
  SIGUSR2  with several workers: restart them, one after the other
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(commands, "serve", "run the service", run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument("--check", metavar="ADDRESS", help="in place of service.check")
    parser.add_argument("--status", metavar="ADDRESS", help="in place of telemetry.metrics")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from authz.config.addresses import AddressError  # noqa: PLC0415 - quick otherwise
    from authz.server.main import serve  # noqa: PLC0415 - as above

    try:
        return serve(arguments.config, os.environ, arguments.check, arguments.status)
    except AddressError as error:
        print(f"authz: {error}", file=sys.stderr)
        return WRONG
