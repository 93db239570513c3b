"""The pages as a part: how they are started, and when they count as ready."""

import asyncio
import sys
from pathlib import Path

import pytest

from authz.local.services import pages_service
from authz.local.state import State


def test_command(state: State) -> None:
    """It is this very program with this authz.yaml, and the working folder shadows no module."""
    spec = pages_service(state, Path("/etc/authz.yaml"), {"A": "b"})

    expected = (sys.executable, "-P", "-m", "authz", "pages", "-c", "/etc/authz.yaml", "--listen")
    assert spec.argv == (*expected, f"unix:{state.folder}/run/pages.sock")
    assert spec.env == {"A": "b"}
    assert spec.reloads


def test_ready_when_somebody_listens(state: State) -> None:
    """It is ready once its socket takes connections, not before."""
    spec = pages_service(state, Path("/etc/authz.yaml"), {})

    async def play() -> bool:
        with pytest.raises(FileNotFoundError):
            await spec.ready()
        path = state.socket("pages")
        async with await asyncio.start_unix_server(lambda _, writer: writer.close(), path):
            return await spec.ready()

    assert asyncio.run(play())
