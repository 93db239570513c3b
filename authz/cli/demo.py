"""`authz demo`: the whole with a stand-in issuer, and a walk through it."""

import argparse
import sys
from importlib.metadata import entry_points
from pathlib import Path

from authz.cli.common import FAILED, command

_EXAMPLES = """\
examples:
  authz demo            walk, then keep running until Ctrl-C
  authz demo --once     walk and end; exit status 1 where a step went otherwise
"""
_INSTALL = "in a copy of the repository: pip install . ./demo"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(commands, "demo", "run the whole and walk through it", run, _EXAMPLES)
    parser.add_argument("--once", action="store_true", help="end after the walk")
    parser.add_argument("--state", type=Path, metavar="DIR", help="default: a temporary folder")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration where its package is installed."""
    installed = tuple(entry_points(group="authz.commands", name="demo"))
    if not installed:
        print(f"authz: the demo is a package of its own, authz-demo; {_INSTALL}", file=sys.stderr)
        return FAILED
    try:
        demo = installed[0].load()
    except ImportError as error:
        print(f"authz: the demo needs more ({error}); {_INSTALL}", file=sys.stderr)
        return FAILED
    status: int = demo(once=arguments.once, state=arguments.state)
    return status
