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
@click.option(
    "--replicas",
    type=click.IntRange(1, 100),
    default=1,
    help="How many such processes there are: each takes its part of the rates by address.",
)
def run(*, config: Path, listen: str | None, status: str | None, replicas: int) -> int:
    """Serve until told to stop."""
    try:
        return serve(config, os.environ, listen, status, replicas)
    except (AddressError, PagesConfigError) as error:
        raise CommandError(str(error)) from error
