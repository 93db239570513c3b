"""HTTP transports that reach every name of the demonstration on this machine.

Invariant: a name that was not given goes nowhere. Certificates are checked for the name, not the
address.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from authz_demo.serving import LOOPBACK

# Seconds: no browser gives up on a busy machine in less.
_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class LoopbackNetwork:
    """Say where names lead and whom to trust.

    Attributes:
        ports: by host name, the port of 127.0.0.1 that stands for it, whatever the URL's port.
        authority: the certificate authority to trust, and no other (PEM).
        source: the address of this machine that connections come from: who counts by address
            takes two of them for two computers.
    """

    ports: Mapping[str, int]
    authority: Path
    source: str = LOOPBACK

    def context(self) -> ssl.SSLContext:
        """Return what verifies the servers of this network."""
        return ssl.create_default_context(cafile=self.authority)

    def browser(self) -> httpx.AsyncClient:
        """Return a new browser: it keeps cookies, follows nothing by itself, uses no proxy."""
        return httpx.AsyncClient(
            transport=LoopbackTransport(self), trust_env=False, timeout=_TIMEOUT
        )


class LoopbackTransport(httpx.AsyncBaseTransport):
    """Send every request to 127.0.0.1, with the name it was for in SNI and Host."""

    def __init__(self, network: LoopbackNetwork) -> None:
        """Begin without connections."""
        self._network = network
        self._context = network.context()
        # One pool a name: connections are pooled by address, and one that was opened for another
        # name would carry the wrong SNI.
        self._pools: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request.

        Raises:
            httpx.ConnectError: for a name that was not given.
        """
        name = request.url.host
        if name not in self._network.ports:
            raise httpx.ConnectError(f"{name} is not of this network", request=request)
        if name not in self._pools:
            self._pools[name] = httpx.AsyncHTTPTransport(
                verify=self._context, local_address=self._network.source
            )
        redirected = httpx.Request(
            request.method,
            request.url.copy_with(host=LOOPBACK, port=self._network.ports[name]),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": name},
        )
        return await self._pools[name].handle_async_request(redirected)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()
