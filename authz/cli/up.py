"""`authz up`: Envoy, Valkey and the service on this machine."""

import os
from pathlib import Path

import click

from authz.cli.common import FILE, command, config_argument
from authz.config.load import load
from authz.local.state import default_folder
from authz.local.up import become_up

_EXAMPLES = """\
examples:
  authz up -c authz.yaml
  authz up -c authz.yaml --state /var/lib/authz
"""


@command("up", _EXAMPLES)
@config_argument
@click.option("--state", type=FILE, metavar="DIR", help="Default: .authz beside authz.yaml.")
@click.option("--once-ready", "once", is_flag=True, help="Stop as soon as all is ready.")
def run(*, config: Path, state: Path | None, once: bool) -> int:
    """Run the pieces until told to stop."""
    settings = load(config, os.environ)  # its warnings are told by the service
    path = config.absolute()
    folder = state or default_folder(path)
    return become_up(settings, path, folder, os.environ, once=once)
