"""`authz up`: Envoy, Valkey and the service on this machine."""

import asyncio
import os
from pathlib import Path

import click

from authz.cli.common import FILE, command, config_argument
from authz.config.load import load
from authz.local.up import default_folder, once_ready, up

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
    when_ready = once_ready if once else None
    # An issuer that comes later is waited for by a gateway, and not by somebody who tries it once.
    return asyncio.run(
        up(settings, path, folder, os.environ, when_ready=when_ready, patient=not once)
    )
