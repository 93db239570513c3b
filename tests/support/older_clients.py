"""Official clients that need an environment of their own: SDK 1.x, and TypeScript's."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from authz.core.answers import REFUSAL

_TESTS: Final = Path(__file__).resolve().parents[1]
_SDK_1: Final = _TESTS.parent / ".venv-mcp1" / "bin" / "python"
_NODE: Final = shutil.which("node")
_TYPESCRIPT: Final = _TESTS / "typescript"
needs_sdk_1: Final = pytest.mark.skipif(
    not _SDK_1.exists(), reason="no .venv-mcp1: `make test` makes it"
)
needs_typescript: Final = pytest.mark.skipif(
    _NODE is None or not (_TYPESCRIPT / "node_modules").exists(),
    reason="NOT TESTED: the TypeScript client: node is missing, or `make typescript` was not run",
)
# Method, name, arguments.
Operation = tuple[str, str, dict[str, object]]


def run_sdk_1(url: str, host: str, token: str, operations: Sequence[Operation]) -> list[str]:
    """Do operations with the Python SDK 1.x, in one session.

    Args:
        url: where Envoy listens on this machine, with the server's path.
        host: the gateway's name.
        token: the access token.
        operations: in their order.

    Returns:
        how each ended: the names of a list, the reason of a refusal, or `allowed`. An HTTP error
        ends the session, and its status is the last.
    """
    script = _TESTS / "e2e" / "mcp1_operations.py"
    return _run(operations, str(_SDK_1), str(script), url, host, token)


def run_typescript(url: str, port: int, token: str, operations: Sequence[Operation]) -> list[str]:
    """Do the same with the TypeScript SDK.

    Args:
        url: of the server, by the gateway's name.
        port: where Envoy listens on this machine.
        token: the access token.
        operations: in their order.
    """
    script = _TYPESCRIPT / "operations.mjs"
    return _run(operations, str(_NODE), str(script), url, str(port), token)


def _run(operations: Sequence[Operation], *words: str) -> list[str]:
    env = {"PATH": os.environ["PATH"], "NODE_TLS_REJECT_UNAUTHORIZED": "0"}
    command = [*words, REFUSAL, json.dumps(operations)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0, done.stderr
    ended: list[str] = json.loads(done.stdout)
    return ended
