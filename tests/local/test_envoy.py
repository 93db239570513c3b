"""Envoy under the supervisor: private, restarted, and nobody is cut off when it stops."""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authz.local import probe
from authz.local.envoy import envoy_service, write_files
from authz.local.state import FAILED, State
from authz.process.group import STOPPED
from tests.process.stage import ServiceStage, listens, until
from tests.support.listening import listening

_CONFIGURATION = """\
admin: {address: {pipe: {path: %(admin)s, mode: 384}}}
static_resources:
  clusters:
  - name: upstream
    load_assignment:
      cluster_name: upstream
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %(upstream)s}}}}]}]
  listeners:
  - name: gateway
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.\
http_connection_manager.v3.HttpConnectionManager
          stat_prefix: gateway
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: /}, route: {cluster: upstream}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"""


def _files(state: State) -> dict[str, str]:
    places = {"admin": state.socket("admin"), "upstream": state.socket("upstream")}
    return {"envoy.yaml": _CONFIGURATION % places}


class EnvoyUpstream:
    """Answer requests when told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked.set()
            await self.answer.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def upstream(state: State) -> AsyncIterator[EnvoyUpstream]:
    """Serve it on the socket `upstream`."""
    handler = EnvoyUpstream()
    async with listening(handler, state.socket("upstream")):
        yield handler


async def _port(state: State) -> int:
    answer = await probe.http(state.socket("admin"), "/listeners?format=json")
    status = json.loads(answer.body)["listener_statuses"][0]
    return int(status["local_address"]["socket_address"]["port_value"])


def _free(port: int) -> bool:
    """Tell whether nobody listens on a port any more."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0


def _pid(state: State) -> int:
    """Return the process that runs on this state folder."""
    needle = str(state.envoy / "envoy.yaml")
    found = [int(path.name) for path in Path("/proc").glob("[0-9]*") if needle in _argv_of(path)]
    assert len(found) == 1
    return found[0]


def _argv_of(path: Path) -> str:
    try:
        return (path / "cmdline").read_text()
    except OSError:
        return ""


def test_stop_cuts_nobody_off(state: State, stage: ServiceStage) -> None:
    """A request in flight is answered: Envoy accepts nobody new, waits, and ends then."""
    write_files(state, _files(state))
    spec = envoy_service(state, dict(os.environ))

    async def play() -> int:
        async with upstream(state) as behind, stage.playing(spec) as run:
            await until(lambda: "envoy  ready" in stage.lines)
            port = await _port(state)
            request = asyncio.create_task(probe.http(("127.0.0.1", port), "/"))
            await asyncio.wait_for(behind.asked.wait(), 60)
            stage.send(signal.SIGTERM)
            await until(lambda: _free(port))
            assert not request.done()
            behind.answer.set()
            assert await request == (200, b"done")
            return await run

    assert asyncio.run(play()) == STOPPED


def test_stream_does_not_hold_us(
    state: State, stage: ServiceStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would last for hours is cut when the time for draining is over."""
    monkeypatch.setattr("authz.local.envoy._DRAIN", 0.1)
    write_files(state, _files(state))
    spec = envoy_service(state, dict(os.environ))

    async def play() -> int:
        async with upstream(state) as behind, stage.playing(spec) as run:
            await until(lambda: "envoy  ready" in stage.lines)
            request = asyncio.create_task(probe.http(("127.0.0.1", await _port(state)), "/"))
            await asyncio.wait_for(behind.asked.wait(), 60)
            stage.send(signal.SIGTERM)
            code = await run
            behind.answer.set()
            with pytest.raises(OSError, match=r"not HTTP|reset"):
                await request
            return code

    assert asyncio.run(play()) == STOPPED


@pytest.mark.attack("loopback-envoy-admin")
def test_sockets(state: State, stage: ServiceStage) -> None:
    """It listens on the gateway's port and its admin socket, and nowhere else, not in the abstract
    namespace either.
    """
    write_files(state, _files(state))
    spec = envoy_service(state, dict(os.environ))

    async def play() -> None:
        async with stage.playing(spec):
            await until(lambda: "envoy  ready" in stage.lines)
            port = await _port(state)
            admin = state.socket("admin")
            assert listens(_pid(state)) == {f"0100007F:{port:04X}", str(admin)}
            assert stat.S_IMODE(admin.stat().st_mode) == 0o600

    asyncio.run(play())


def test_comes_back(state: State, stage: ServiceStage) -> None:
    """An Envoy that was killed is back, over the socket file that it left behind."""
    write_files(state, _files(state))
    spec = envoy_service(state, dict(os.environ))

    async def play() -> None:
        async with stage.playing(spec):
            await until(lambda: "envoy  ready" in stage.lines)
            os.kill(_pid(state), signal.SIGKILL)
            await until(lambda: stage.lines.count("envoy  ready") == 2)

    asyncio.run(play())


def test_wrong_configuration(state: State, stage: ServiceStage) -> None:
    """Envoy's own words say why it does not start."""
    write_files(state, {"envoy.yaml": "admin: {nonsense: 1}\n"})
    spec = envoy_service(state, dict(os.environ))

    assert asyncio.run(stage.supervisor(spec).run()) == FAILED
    assert stage.said("envoy could not start: exit status 1")
    assert stage.said("nonsense")


def test_files_are_private(state: State) -> None:
    """Envoy's files lie in its folder, readable for this user alone."""
    write_files(state, _files(state) | {"certificate.yaml": "x: 1\n"})

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.envoy.iterdir()}
    assert modes == {"envoy.yaml": 0o600, "certificate.yaml": 0o600}
