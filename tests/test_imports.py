"""Which libraries each program of ours holds: they are what it costs to start and to keep."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
# Libraries that take milliseconds and megabytes; what they import themselves is not listed.
HEAVY: Final = frozenset(
    (
        *("asyncio", "authlib", "betterproto2", "cryptography", "envoy_data_plane", "grpc"),
        *("httpx", "jinja2", "joserfc", "jwt", "limits", "prometheus_client", "pydantic"),
        *("redis", "ruamel", "starlette", "uvicorn"),
    )
)
# `limits` brings asyncio: its storages, which we do not use, are imported with it.
CONFIGURATION: Final = frozenset({"asyncio", "cryptography", "limits", "pydantic", "ruamel"})
WORKER: Final = CONFIGURATION | {"httpx", "joserfc", "jwt", "prometheus_client"}
HELP: Final = """\
from authz.cli import main
try:
    main(["--help"])
except SystemExit:
    pass"""


def loaded(code: str) -> set[str]:
    """Return the heavy libraries that a new interpreter holds after some code."""
    shown = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-P", "-c", shown]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(HEAVY).intersection(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (HELP, frozenset[str]()),
        ("import authz.server.watcher", {"asyncio"}),
        ("import authz.local.running", {"asyncio"}),
        ("import authz.cli.check_config", CONFIGURATION),
        ("import authz.cli.status", CONFIGURATION),
        ("import authz.server.pyvoy_host", WORKER),
        ("import authz.server.worker_program", WORKER),
        ("import authz.server.http2_transport, authz.server.worker_program", WORKER),
        ("import authz.login.main", WORKER | {"authlib", "jinja2", "starlette", "uvicorn"}),
    ],
    ids=[
        *("--help", "watcher of serve", "up", "check-config", "status"),
        *("worker in Envoy", "worker", "worker on ngh2", "pages"),
    ],
)
def test_a_program_holds_these_libraries(code: str, expected: frozenset[str]) -> None:
    """And no others: what is needed now and then is imported then, or by a process that ends."""
    assert loaded(code) == expected
