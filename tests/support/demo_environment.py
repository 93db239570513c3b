"""A scene of the demonstration that runs in a thread, for tests that want the whole."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from authz.config.load import load
from authz.config.model import Login
from authz.local.up import up
from authz.process.group import Handlers
from authz_demo.environment import (
    Environment,
    IdentityProvider,
    Location,
    write_environment,
)
from authz_demo.loopback import LoopbackNetwork
from tests.support.ports import held_port

T = TypeVar("T")
_PATIENCE = 120.0


class RunningEnvironment:
    """Hold a scene whose parts run, and the means to ask it.

    Attributes:
        scene: what runs.
        lines: what was said so far.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.lines: list[str] = []
        self._stop: Callable[[], None] = lambda: None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def network(self) -> LoopbackNetwork:
        """Return how its names are reached."""
        ports = {
            f"{name}.{self.environment.place.domain}": self.environment.place.port
            for name in ("mcp", "auth")
        }
        return LoopbackNetwork(ports, self.environment.certificates.authority)

    @property
    def state(self) -> Path:
        """Return the state folder of `authz up`."""
        return self.environment.place.folder / "state"

    def start(self) -> None:
        """Return when every part is ready.

        Raises:
            RuntimeError: where it ends before, with what it said.
        """
        self._thread.start()
        self._ready.result(_PATIENCE)

    def stop(self) -> None:
        """End it as SIGTERM would."""
        self._stop()
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            code = asyncio.run(self._up())
            problem = RuntimeError(f"it ended with {code}: {self.lines}")
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            problem = RuntimeError(repr(error))
        if not self._ready.done():
            self._ready.set_exception(problem)

    async def _up(self) -> int:
        loop = asyncio.get_running_loop()

        @contextmanager
        def signals(handlers: Handlers) -> Iterator[None]:
            stop = next(iter(handlers.values()))

            def end() -> None:
                loop.call_soon_threadsafe(stop)

            self._stop = end
            yield

        async def when_ready() -> None:
            self._ready.set_result(None)

        environment = self.environment
        return await up(
            load(environment.configuration, os.environ),
            environment.configuration,
            self.state,
            os.environ,
            extras=environment.extras,
            when_ready=when_ready,
            patient=False,
            say=self.lines.append,
            signals=signals,
        )


@contextmanager
def running_environment(
    folder: Path,
    issuer: IdentityProvider | None = None,
    change: Callable[[str], str] = str,
    *,
    login: Login = "direct",
    age: str = "1m",
    **place: Any,
) -> Iterator[RunningEnvironment]:
    """Run a scene as long as the block does.

    Names are those of the recorded Authelia, without a port in any URL: clients are sent to the
    port by a resolver of their own, as a browser is by DNS.
    """
    ports = {name: held_port() for name in ("port", "metrics", "issuer_port")}
    at = Location(folder, **{"domain": "example.test", "public_port": 443, **ports, **place})

    def patient(text: str) -> str:
        """Have Envoy wait for authz as long as authz.yaml allows: machines are busy."""
        assert text.count("issuer:\n  url:") == 1
        return change(text.replace("issuer:\n  url:", "issuer:\n  deadline: 30s\n  url:"))

    running = RunningEnvironment(write_environment(at, issuer, patient, login=login, age=age))
    try:
        running.start()
        yield running
    finally:
        running.stop()
