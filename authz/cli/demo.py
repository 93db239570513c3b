"""`authz demo`: the whole with a stand-in issuer, and a walk through it."""

from importlib.metadata import entry_points
from pathlib import Path

import click

from authz.cli.common import FAILED, FILE, CommandError, command

_EXAMPLES = """\
examples:
  authz demo            walk, then keep running until Ctrl-C
  authz demo --once     walk and end; exit status 1 where a step went otherwise
  authz demo --port 9443
"""
_PORT = click.IntRange(1, 65535)
_INSTALL = "in a copy of the repository: pip install . ./demo"


@command("demo", _EXAMPLES)
@click.option("--once", is_flag=True, help="End after the walk.")
@click.option("--state", type=FILE, metavar="DIR", help="Default: a temporary folder.")
@click.option("--port", type=_PORT, help="Of the gateway (default: 8443, or a free one).")
@click.option("--metrics-port", type=_PORT, help="Of the metrics (default: 9464, or a free one).")
def run(*, once: bool, state: Path | None, port: int | None, metrics_port: int | None) -> int:
    """Run the demonstration where its package is installed."""
    installed = tuple(entry_points(group="authz.commands", name="demo"))
    if not installed:
        message = f"the demo is a package of its own, authz-demo; {_INSTALL}"
        raise CommandError(message, FAILED)
    try:
        demo = installed[0].load()
    except ImportError as error:
        raise CommandError(f"the demo needs more ({error}); {_INSTALL}", FAILED) from error
    try:
        status: int = demo(once=once, state=state, port=port, metrics_port=metrics_port)
    except OSError as error:
        raise CommandError(str(error), FAILED) from error
    return status
