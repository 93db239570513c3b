"""`authz doctor`: what is wrong with a deployment, and which line mends it."""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from authz.cli.common import DONE, FAILED, WRONG, command, config_argument, state_argument
from authz.config.load import load
from authz.doctor.finding import Finding, Severity, has_problems

TOKEN: Final = "AUTHZ_TOKEN"  # noqa: S105 - the variable's name
_ADMIN: Final = Path("/run/authz/envoy-admin.sock")
_LONGEST: Final = 64 * 1024
_EXAMPLES: Final = """\
examples:
  authz doctor authz.yaml
  authz doctor authz.yaml --token-file -           reads a token from standard input
  AUTHZ_TOKEN=… authz doctor authz.yaml --json
A token is never an argument: every user of a machine may read those.
exit status: 0 no problems, 1 problems, 2 asked wrongly (arguments or authz.yaml)
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "look at a deployment: what is wrong, and which line mends it"
    parser = command(commands, "doctor", words, run, _EXAMPLES)
    parser.allow_abbrev = False  # or `--token eyJ…` would be taken for a file
    config_argument(parser)
    parser.add_argument("--json", action="store_true", help="findings as a JSON list")
    parser.add_argument(
        "--token-file",
        action="append",
        default=[],
        metavar="FILE",
        help=f"an access token to look at, - for standard input (or {TOKEN}); may be repeated",
    )
    parser.add_argument(
        "--envoy-admin",
        type=Path,
        metavar="PATH",
        help=f"Envoy's admin socket (default: that of `authz up`, else {_ADMIN})",
    )
    state_argument(parser)
    parser.add_argument(
        "--no-log-in",
        action="store_true",
        help="do not let each client begin a log-in at Authelia",
    )
    parser.add_argument(
        "--client-id",
        action="append",
        default=[],
        metavar="URL",
        help="a client's metadata document to look at; may be repeated",
    )
    parser.add_argument(
        "--no-documents",
        action="store_true",
        help="do not try whether metadata documents of known assistants can be fetched",
    )


def run(arguments: argparse.Namespace) -> int:
    """Look, and print what was found."""
    from authz.doctor.run import DoctorOptions, examine  # noqa: PLC0415 - keeps other commands quick
    from authz.local.redis_location import as_its_service  # noqa: PLC0415 - as above
    from authz.local.state import State  # noqa: PLC0415 - as above
    from authz.local.up import default_folder  # noqa: PLC0415 - as above

    try:
        tokens = tuple(_tokens(arguments.token_file))
    except (OSError, ValueError) as error:
        # Not the path: a token may have been pasted in its place.
        words = error.strerror if isinstance(error, OSError) else error
        print(f"authz: --token-file: {words}", file=sys.stderr)
        return WRONG
    settings = load(arguments.config, os.environ)
    folder = arguments.state or default_folder(arguments.config)
    beside = State(folder.absolute()).socket("admin")
    options = DoctorOptions(
        path=arguments.config,
        admin=arguments.envoy_admin or (beside if beside.is_socket() else _ADMIN),
        admin_named=arguments.envoy_admin is not None,
        tokens=tokens,
        probe_clients=not arguments.no_log_in,
        documents=None if arguments.no_documents else tuple(arguments.client_id),
    )
    findings = asyncio.run(examine(settings, options, as_its_service(settings, os.environ, folder)))
    if arguments.json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        _print(findings)
    return FAILED if has_problems(findings) else DONE


def _tokens(files: list[str]) -> list[str]:
    """Return the tokens of files, and of the environment.

    Raises:
        OSError: where a file cannot be read.
        ValueError: where it is no text, or far too long for a token.
    """
    found = [os.environ[TOKEN]] if os.environ.get(TOKEN) else []
    for name in files:
        if name == "-":
            data = sys.stdin.buffer.read(_LONGEST + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST or not data.isascii():
            raise ValueError("that is no token")
        found.append(data.decode("ascii"))
    return found


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        print(finding)
    counts = Counter(finding.severity for finding in findings)
    print(f"{counts[Severity.PROBLEM]} problem(s), {counts[Severity.WARNING]} warning(s)")
