"""`authz pages`: the front door and the step-up, a process of its own."""

import os
from pathlib import Path

import click

from authz.cli.common import CommandError, command, config_argument
from authz.config.addresses import AddressError
from authz.login.main import PagesConfigError, serve

_EXAMPLES = """\
examples:
  authz pages -c /etc/authz/authz.yaml
  authz pages --listen unix:/run/authz/pages.sock
signals:
  SIGTERM  answer what is in flight, then end
  SIGHUP   read authz.yaml again; one with an error changes nothing. A change of the file is
           taken without it (service.watch_config)
Only Envoy may reach it: it believes the address that stands in X-Forwarded-For.
"""


@command("pages", _EXAMPLES)
@config_argument
@click.option("--listen", metavar="ADDRESS", help="In place of service.pages.")
@click.option("--status", metavar="ADDRESS", help="In place of telemetry.pages_metrics.")
def run(*, config: Path, listen: str | None, status: str | None) -> int:
    """Serve until told to stop."""
    try:
        return serve(config, os.environ, listen, status)
    except (AddressError, PagesConfigError) as error:
        raise CommandError(str(error)) from error
