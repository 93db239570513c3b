"""Run the stand-in: inside a test's process, or as a child process of the demonstration."""

import argparse
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from authz_demo.issuer.app import create_app
from authz_demo.issuer.kept import keep, restore
from authz_demo.issuer.keys import StandInKeys
from authz_demo.issuer.pages import WARNING
from authz_demo.issuer.state import StandInIssuer
from authz_demo.issuer.values import StandInConfig, from_json
from authz_demo.serving import ANYWHERE, LOOPBACK, Address, serve, serve_forever


@dataclass(frozen=True, slots=True)
class RunningIssuer:
    """Hold a stand-in that runs in this process.

    Attributes:
        url: where it answers, `http://127.0.0.1:port`; empty on a Unix socket. It wants
            `FORWARDED` headers, as `issuer.internal` does.
        headers: the forwarded headers that an edge would add.
        issuer: its state: replace `keys` to withdraw them, read `memory` to see what it granted.
    """

    url: str
    headers: dict[str, str]
    issuer: StandInIssuer


def forwarded_headers(config: StandInConfig) -> dict[str, str]:
    """Return what an edge adds to a request for this issuer."""
    return {"X-Forwarded-Proto": "https", "X-Forwarded-Host": config.authority}


@asynccontextmanager
async def run(
    config: StandInConfig, address: Address = ANYWHERE, keys: StandInKeys | None = None
) -> AsyncIterator[RunningIssuer]:
    """Run the stand-in in this process.

    Args:
        config: who there is.
        address: where to listen; a free port of 127.0.0.1 by default.
        keys: keys to sign with; new ones where none are given.

    Raises:
        OSError: where the address cannot be had.
    """
    issuer = StandInIssuer(config, keys)
    async with serve(create_app(issuer), address) as port:
        url = f"http://{LOOPBACK}:{port}" if port else ""
        yield RunningIssuer(url, forwarded_headers(config), issuer)


def main(argv: Sequence[str]) -> int:
    """Run the stand-in as a process of its own, until SIGTERM or SIGINT.

    Args:
        argv: `--config FILE`, and `--port N` (with `--bind ADDRESS`) or `--uds PATH`;
            `--state FILE` to keep keys and grants from one start to the next.

    Returns:
        the exit status.
    """
    parser = argparse.ArgumentParser(prog="authz_demo.issuer", description=WARNING)
    parser.add_argument("--config", type=Path, required=True, help="JSON, see to_json()")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="a port of --bind")
    where.add_argument("--uds", type=Path, help="a Unix socket, made with mode 600")
    parser.add_argument("--bind", default=LOOPBACK, help="an IPv4 address (default: %(default)s)")
    parser.add_argument("--state", type=Path, help="keeps keys and grants; left out, nothing is")
    options = parser.parse_args(argv)
    config = from_json(options.config.read_text(encoding="utf-8"))
    sys.stderr.write(f"{'!' * len(WARNING)}\n{WARNING}\n{'!' * len(WARNING)}\n")
    sys.stderr.flush()
    address = Address(options.port or 0, options.uds, options.bind)
    issuer = StandInIssuer(config)
    if options.state is not None:
        restore(issuer, options.state)
        # uvicorn raises it again once it has ended; there is something left to do then.
        signal.signal(signal.SIGTERM, lambda *_: None)
    serve_forever(create_app(issuer), address)
    if options.state is not None:
        keep(issuer, options.state)
    return 0
