"""Answers that Envoy makes for want of time or memory: their id finds the line that says why."""

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from authz.cli import main
from authz.config.endpoints import Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.gateway import GATEWAY, GOOD
from tests.support.wild_client import WildAnswer, WildClient

SETTINGS = """
issuer: {url: https://auth.example.test, internal: http://issuer:9091, serve: true}
front_door: {key_file: /k.pem}
gateway: {url: https://mcp.example.test, listen: 127.0.0.1:0}
servers: {files: {upstream: http://files:8000/mcp}}
"""


@contextmanager
def running(memory: int) -> Iterator[tuple[RunningEnvoy, WildClient]]:
    """Run an Envoy whose pages and portal never answer; it waits for them for less than a minute.

    Args:
        memory: bytes that it may have.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        for name in ("pages", "issuer"):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.bind(f"{folder}/{name}")
            silent.listen()
        where = Topology(
            authz=(Unix(f"{folder}/check"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Unix(f"{folder}/files")},
            issuer=Unix(f"{folder}/issuer"),
            pages=(Unix(f"{folder}/pages"),),
            memory=memory,
        )
        (text,) = render(edge.patient_settings(SETTINGS), where).values()
        rendered = {"envoy.yaml": text.replace(' timeout: "60s"', ' timeout: "0.3s"')}
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        yield envoy, WildClient(envoy.port("gateway"), GATEWAY)


def explained(
    envoy: RunningEnvoy,
    path: str,
    answer: WildAnswer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Return what `authz explain` says of an answer, by the id that its reader has."""
    (request_id,) = answer.values("x-request-id")
    assert (request_id.encode() in answer.body) is (path != "/token")  # as RFC 6749 has errors
    log = tmp_path / "envoy.log"
    log.write_text("".join(json.dumps(each) + "\n" for each in envoy.access_log(request_id)))
    main(["explain", "--request-id", request_id, "--log", str(log)])
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def late() -> Iterator[tuple[RunningEnvoy, WildClient]]:
    """An Envoy with enough memory."""
    with running(1 << 30) as found:
        yield found


@pytest.mark.parametrize(
    ("host", "path"),
    [(GATEWAY, "/authorize"), (GATEWAY, "/token"), ("auth.example.test", "/")],
)
def test_an_answer_that_comes_too_late_is_explained(
    late: tuple[RunningEnvoy, WildClient],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    host: str,
    path: str,
) -> None:
    """504 of the pages and of Authelia's portal."""
    envoy, client = late
    answer = WildClient(client.port, host)("GET", path)
    told = explained(envoy, path, answer, tmp_path, capsys)

    assert answer.status == 504
    assert "did not begin to answer in time" in told


def test_a_request_that_is_shed_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """503 of Envoy's overload manager, on an MCP path."""
    with running(1 << 20) as (envoy, client):
        envoy.wait_for("overload.envoy.overload_actions.stop_accepting_requests.active", 1)
        answer = client("POST", "/files", GOOD, body=b"{}")
        told = explained(envoy, "/files", answer, tmp_path, capsys)

    assert answer.status == 503
    assert "not enough memory" in told
