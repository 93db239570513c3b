"""Commands of authz, typed in this process: a new one reads a second of modules first.

That a process of its own ends the same is shown by tests/login/web/test_pages_process.py.
"""

import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from authz.cli import main
from tests.support.demo_environment import RunningEnvironment


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


def type_command(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, in a thread: one that is asynchronous has a loop of its own.

    Args:
        words: what follows `authz`.
        stdin: what it can read.
        env: its environment, where that is not ours without what configures authz.
    """
    if env is None:
        env = {name: value for name, value in os.environ.items() if "AUTHZ" not in name}
    out, err = io.StringIO(), io.StringIO()

    def run() -> int:
        try:
            return main(words)
        except SystemExit as left:
            return left.code if isinstance(left.code, int) else 1

    with (
        patch.dict(os.environ, env, clear=True),
        patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        redirect_stdout(out),
        redirect_stderr(err),
        ThreadPoolExecutor(1) as thread,
    ):
        status = thread.submit(run).result(60)
    return Ended(status, out.getvalue(), err.getvalue())


class Typed:
    """Type commands as the operator of `authz up` does."""

    def __init__(self, whole: RunningEnvironment) -> None:
        self.whole = whole

    def __call__(self, *words: str, token: str = "") -> Any:
        environment = self.whole.environment
        place = ("-c", str(environment.configuration), "--state", str(self.whole.state), "--json")
        env = {name: value for name, value in os.environ.items() if "AUTHZ" not in name}
        done = type_command(*words, *place, stdin=token, env=env | {"USER": "ops"})
        assert done.status == 0, done.err
        assert not token or token not in done.out + done.err
        return json.loads(done.out)
