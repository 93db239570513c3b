"""`authz pages` where one made-up host has an address: tests of client id metadata documents.

For that one host the fetcher takes this machine for the open Internet and trusts the test's own
authority; every other name is looked up, checked and refused as in production.
"""

import os
import ssl
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from authz.cli import main
from authz.local.services import pages_service
from authz.local.state import State
from authz.login import wiring
from authz.login.clients.fetching import Fetched, Fetcher
from authz.process.service import ServiceSpec

HOST = "AUTHZ_TEST_HOST"
PORT = "AUTHZ_TEST_PORT"
AUTHORITY = "AUTHZ_TEST_AUTHORITY"
_ROOT = Path(__file__).resolve().parents[2]


class _WithOneName:
    """Fetch from the one host here, from all others as in production."""

    def __init__(self, resolve: Any) -> None:
        async def here(_: str) -> Sequence[str]:
            return ["127.0.0.1"]

        self._others = Fetcher(resolve)
        self._here = Fetcher(
            here,
            public=lambda address: address == "127.0.0.1",
            trust=ssl.create_default_context(cafile=os.environ[AUTHORITY]),
            port=int(os.environ[PORT]),
        )

    async def __call__(self, url: str, host: str) -> Fetched:
        fetch = self._here if host == os.environ[HOST] else self._others
        return await fetch(url, host)


def knowing(host: str, port: int, authority: Path) -> Any:
    """Return what stands for `authz.local.services.pages_service` in a scene with that host."""

    def part(state: State, configuration: Path, env: dict[str, str]) -> ServiceSpec:
        told = {HOST: host, PORT: str(port), AUTHORITY: str(authority), "PYTHONPATH": str(_ROOT)}
        real = pages_service(state, configuration, env | told)
        at = real.argv.index("authz")
        return replace(real, argv=(*real.argv[:at], __name__, *real.argv[at + 1 :]))

    return part


if __name__ == "__main__":
    with patch.object(wiring, "Fetcher", _WithOneName):
        sys.exit(main(sys.argv[1:]))
