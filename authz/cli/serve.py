"""`authz serve`: the service alone."""

import os
from pathlib import Path

import click

from authz.cli.common import FILE, CommandError, command, config_argument
from authz.config.addresses import AddressError
from authz.server.main import serve

_EXAMPLES = """\
examples:
  authz serve -c /etc/authz/authz.yaml
  authz serve --check unix:/run/authz/check.sock --status 127.0.0.1:9464
  authz serve --envoy /etc/envoy                       Envoy follows each reload
signals:
  SIGTERM  answer what is in flight, then end
  SIGHUP   read authz.yaml again; one with an error changes nothing. A change of the file is
           taken without it (service.watch_config)
  SIGUSR2  with several workers: restart them, one after the other
"""


@command("serve", _EXAMPLES)
@config_argument
@click.option("--check", metavar="ADDRESS", help="In place of service.check.")
@click.option("--status", metavar="ADDRESS", help="In place of telemetry.metrics.")
@click.option(
    "--envoy",
    type=FILE,
    metavar="DIR",
    help="Where `envoy-config -o` wrote: each reload writes there, and Envoy follows.",
)
@click.option(
    "--envoy-stats",
    metavar="SOCKET",
    default="",
    help="Pass on what Envoy tells there, at /envoy/metrics beside ours.",
)
def run(
    *, config: Path, check: str | None, status: str | None, envoy: Path | None, envoy_stats: str
) -> int:
    """Serve until told to stop."""
    try:
        return serve(config, os.environ, check, status, envoy, envoy_stats=envoy_stats)
    except AddressError as error:
        raise CommandError(str(error)) from error
