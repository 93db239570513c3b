"""`authz pages`: the front door and the step-up, a process of its own."""

import argparse
import os
import sys

from authz.cli.common import WRONG, command, config_argument

_EXAMPLES = """\
examples:
  authz pages -c /etc/authz/authz.yaml
  authz pages --listen unix:/run/authz/pages.sock
signals:
  SIGTERM  answer what is in flight, then end
  SIGHUP   read authz.yaml again; one with an error changes nothing
Only Envoy may reach it: it believes the address that stands in X-Forwarded-For.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(commands, "pages", "serve the log-in and the step-up", run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument("--listen", metavar="ADDRESS", help="in place of service.pages")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from authz.config.addresses import AddressError  # noqa: PLC0415 - quick otherwise
    from authz.login.main import PagesConfigError, serve  # noqa: PLC0415 - as above

    try:
        return serve(arguments.config, os.environ, arguments.listen)
    except (AddressError, PagesConfigError) as error:
        print(f"authz: {error}", file=sys.stderr)
        return WRONG
