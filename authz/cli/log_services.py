"""Whose lines of a log `connections` and `explain` take, and what they say of the others'."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from authz.process.output import printable
from authz.telemetry.log_writers import AUTHZ, ENVOY, LineTrust

_OURS: Final = ", ".join(sorted(AUTHZ | ENVOY))

service_option = click.option(
    "--service",
    "services",
    metavar="NAME",
    multiple=True,
    help=f"A container or service whose lines are authz's or Envoy's, besides {_OURS}.",
)


def warn_of_writers(trust: LineTrust, logs: Sequence[Path]) -> None:
    """Say on stderr what was left out, and what was believed without a name."""
    if trust.foreign:
        print(f"authz: {foreign_lines(trust)}", file=sys.stderr)
    is_piped = not logs or any(str(log) == "-" for log in logs)
    if trust.unnamed and is_piped:
        print(
            "authz: the lines on standard input do not say which service wrote them: they are taken"
            " as the log of authz, its pages and Envoy alone. Where an MCP server's output is among"
            " them, as with docker compose logs --no-log-prefix, it can have written any of them",
            file=sys.stderr,
        )


def foreign_lines(trust: LineTrust) -> str:
    """Return what there is to say of lines of ours that others have written."""
    whose = ", ".join(f"{printable(name)} ({count})" for name, count in trust.foreign.items())
    return (
        f"left out: lines that look like ours and were written by {whose}. Lines count from"
        f" {_OURS}; --service NAME takes another's"
    )
