"""The parser, the table of commands, and the errors that any of them may end with."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from authz import __version__
from authz.cli import (
    authelia_config,
    check_config,
    client_config,
    clients,
    demo,
    doctor,
    envoy_config,
    explain,
    identity_keys,
    init,
    login,
    pages,
    revocations,
    revoke,
    schema,
    serve,
    up,
)
from authz.cli.common import FAILED, WRONG, Command, os_words, print_problems
from authz.cli.nearest import unknown_arguments, unknown_command
from authz.config.problems import ConfigError

_COMMANDS: Final = (
    init,
    check_config,
    schema,
    envoy_config,
    authelia_config,
    client_config,
    identity_keys,
    doctor,
    explain,
    login,
    revoke,
    revocations,
    clients,
    serve,
    pages,
    up,
    demo,
)
_NAMES: Final = frozenset(each.__name__.rpartition(".")[2].replace("_", "-") for each in _COMMANDS)
_EPILOG: Final = """\
examples:
  authz init deploy --domain home.example.com
                                           a folder that runs with Docker Compose
  authz check-config authz.yaml            say everything that is wrong, with lines
  authz schema > authz.schema.json         for editors: complete and check while typing
  authz envoy-config authz.yaml -o /etc/envoy
  authz envoy-config authz.yaml --fragment only the pieces for an Envoy that you have
  authz authelia-config authz.yaml         what to add to Authelia's configuration
  authz client-config claude authz.yaml    what to paste into an MCP client
  authz doctor authz.yaml                  what is wrong, and which line mends it
  authz explain authz.yaml --server files --token-file FILE
                                           why a request is allowed or refused
  authz login authz.yaml --server files    a token to try a server with
  authz revoke --user SUBJECT              take tokens back, at once
  authz revocations                        what is taken back, and how to lift it
  authz clients                            who has logged in with what; block one
  authz serve -c authz.yaml                the service alone
  authz pages -c authz.yaml                the log-in that clients see, and the step-up
  authz up -c authz.yaml                   Envoy, Valkey and the service on this machine
  authz demo --once                        the whole with a stand-in issuer, and a walk

exit status: 0 done, 1 failed, 2 asked wrongly (arguments or authz.yaml)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    top = parser()
    wrong = unknown_command(argv, _NAMES)
    if wrong is not None:
        top.error(wrong)
    arguments, left = top.parse_known_args(argv)
    if left:
        arguments.parser.error(unknown_arguments(left, arguments.parser))
    command: Command = arguments.run
    try:
        return command(arguments)
    except ConfigError as errors:
        print_problems(errors.problems, as_json=getattr(arguments, "json", False))
        return WRONG
    except BrokenPipeError:
        # Whoever read us has seen enough; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, EOFError):
        # Somebody who was asked, or waited, has gone.
        print("\nauthz: stopped", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"authz: {os_words(error)}", file=sys.stderr)
        return FAILED


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="authz",
        description="An Envoy ext_authz sidecar for MCP servers behind Authelia.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"authz {__version__}")
    commands = top.add_subparsers(metavar="command", required=True)
    for module in _COMMANDS:
        module.add(commands)
    return top
