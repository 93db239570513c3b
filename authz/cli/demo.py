"""`authz demo`: the whole with a stand-in issuer, and a walk through it."""

import argparse
import sys
from pathlib import Path

from authz.cli.common import FAILED, command

_EXAMPLES = """\
examples:
  authz demo            walk, then keep running until Ctrl-C
  authz demo --once     walk and end; exit status 1 where a step went otherwise
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(commands, "demo", "run the whole and walk through it", run, _EXAMPLES)
    parser.add_argument("--once", action="store_true", help="end after the walk")
    parser.add_argument("--state", type=Path, metavar="DIR", help="default: a temporary folder")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration."""
    try:
        from authz.demo.run import demo  # noqa: PLC0415 - needs the extra `demo`
    except ImportError as error:
        print(f"authz: the demo needs more: pip install 'authz[demo]' ({error})", file=sys.stderr)
        return FAILED
    return demo(once=arguments.once, state=arguments.state)
