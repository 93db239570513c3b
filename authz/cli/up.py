"""`authz up`: Envoy, Valkey and the service on this machine."""

import argparse
import asyncio
import os
from pathlib import Path

from authz.cli.common import command, config_argument
from authz.config.load import load

_EXAMPLES = """\
examples:
  authz up -c authz.yaml
  authz up -c authz.yaml --state /var/lib/authz
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "run Envoy, Valkey and the service on this machine"
    parser = command(commands, "up", words, run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="default: .authz beside authz.yaml"
    )
    parser.add_argument("--once-ready", action="store_true", help="stop as soon as all is ready")


def run(arguments: argparse.Namespace) -> int:
    """Run the pieces until told to stop."""
    from authz.local.up import default_folder, once_ready, up  # noqa: PLC0415 - quick otherwise

    settings = load(arguments.config, os.environ)  # its warnings are told by the service
    path = arguments.config.absolute()
    folder = arguments.state or default_folder(path)
    once = arguments.once_ready
    when_ready = once_ready if once else None
    # An issuer that comes later is waited for by a gateway, and not by somebody who tries it once.
    return asyncio.run(
        up(settings, path, folder, os.environ, when_ready=when_ready, patient=not once)
    )
