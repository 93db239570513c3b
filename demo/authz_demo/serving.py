"""Serve ASGI applications on a free loopback port or a Unix socket.

Invariant: a Unix socket is made for its owner alone (mode 600); a port is of 127.0.0.1, unless
another address is named: in a container, whose networks then say who may come.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """Say where to listen.

    Attributes:
        port: a port of `host`; 0 for one that the system chooses.
        uds: the path of a Unix socket instead.
        host: an IPv4 address of this machine.
    """

    port: int = 0
    uds: Path | None = None
    host: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """Name the files of a server's certificate and key (PEM)."""

    certificate: Path
    key: Path


ANYWHERE = Address()


def bind(address: Address) -> socket.socket:
    """Return a bound socket.

    Raises:
        OSError: where the port is taken or the path cannot be had.
    """
    bound = socket.socket(socket.AF_INET if address.uds is None else socket.AF_UNIX)
    # Between bind and chmod a Unix socket would be open to others: the mask closes that gap.
    mask = os.umask(0o177)
    try:
        if address.uds is None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address.host, address.port))
        else:
            address.uds.unlink(missing_ok=True)
            bound.bind(str(address.uds))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


def _config(app: ASGIApp, tls: ServingCertificate | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )


class _InProcess(uvicorn.Server):
    """Serve inside somebody else's process: leave its signals alone, say when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serve(
    app: ASGIApp, address: Address = ANYWHERE, tls: ServingCertificate | None = None
) -> AsyncIterator[int]:
    """Serve an application in this process; give the port (0 for a Unix socket).

    Raises:
        OSError: where the address cannot be had.
    """
    bound = bind(address)
    port = bound.getsockname()[1] if address.uds is None else 0
    server = _InProcess(_config(app, tls))
    task = asyncio.create_task(server.serve(sockets=[bound]))
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            raise OSError("the server ended while it started")
        yield port
    finally:
        server.should_exit = True
        ready.cancel()
        await task
        bound.close()


def serve_forever(app: ASGIApp, address: Address) -> None:
    """Serve an application as the whole of this process, until SIGTERM or SIGINT.

    Raises:
        OSError: where the address cannot be had.
    """
    with bind(address) as bound:
        uvicorn.Server(_config(app, None)).run(sockets=[bound])
