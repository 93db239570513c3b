"""A running `authz serve` whose targets hang, stream without end or count: decisions go on."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from tests.support.hostile_target import (
    TargetServer,
    endless_body,
    endless_head,
    hang,
    status,
    target_server,
)
from tests.support.service import ServiceProcess, running_issuer, running_service, until
from tests.support.transports import installed
from tests.support.values import request as sent
from tests.support.values import rpc
from tests.support.wire import check_request
from tests.tokens.token_factory import rsa_signer

_CONFIG: Final = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d, deadline: 30s}}
gateway: {{url: https://mcp.example.test, refusals: http_status}}
telemetry: {{log: json}}
service: {{transport: {transport}, workers: {workers}, drain_notice: 0s}}
servers: {{files: {{upstream: "http://127.0.0.1:9/mcp", limits: []}}}}
notify:
  good: {{form: json, url: "{good}"}}
  hanging: {{form: gotify, url: "{hanging}", token_file: {token}}}
  endless: {{form: ntfy, url: "{endless}/topic"}}
  head: {{form: json, url: "{head}"}}
"""


@dataclass
class _Running:
    """A service and its targets."""

    service: ServiceProcess
    good: TargetServer
    hanging: TargetServer
    endless: TargetServer

    def forge(self, address: str) -> bool:
        token = rsa_signer().token({"exp": int(time.time()) + 60})
        forged = f"{token[:-8]}AAAAAAAA"
        asked = sent(rpc(), address=address, authorization=f"Bearer {forged}")
        return self.service.check(check_request(asked)).allowed

    def ask(self) -> bool:
        now = int(time.time())
        token = rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 600})
        asked = sent(rpc(), authorization=f"Bearer {token}")
        return self.service.check(check_request(asked)).allowed

    def count(self, outcome: str) -> float:
        name = f'authz_notifications_total{{outcome="{outcome}"}} '
        lines = self.service.get("/metrics")[1].splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(name))


@pytest.fixture(
    params=[("grpcio", 1), ("ngh2", 1), ("grpcio", 2)], ids=["grpcio", "ngh2", "workers"]
)
def running(request: pytest.FixtureRequest) -> Iterator[_Running]:
    transport, workers = request.param
    installed(transport)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="f")))
        token = folder / "token"
        token.write_text("hunter2")
        token.chmod(0o600)
        issuer = stack.enter_context(running_issuer())
        answers = (status(204), hang, endless_body, endless_head)
        good, hanging, endless, head = [stack.enter_context(target_server(a)) for a in answers]
        config = _CONFIG.format(
            issuer=issuer.address, transport=transport, workers=workers, token=token,
            good=good.url, hanging=hanging.url, endless=endless.url, head=head.url,
        )  # fmt: skip
        env = {"PATH": os.environ["PATH"]}
        service = stack.enter_context(running_service(folder, config, env, workers))
        service.wait_ready()
        yield _Running(service, good, hanging, endless)
        assert (folder / "stderr").read_text() == ""


@pytest.mark.attack("notify-hostile-answer")
def test_decisions_go_on_whatever_a_target_does(running: _Running) -> None:
    """A burst is told; one target hangs, two send without end; each decision is as it was, and the
    end counts what was not sent.
    """
    assert not any(running.forge(f"192.0.2.{number}") for number in range(40))
    until(lambda: bool(running.good.posted), "the message")
    until(lambda: bool(running.hanging.posted and running.endless.posted), "the other messages")
    assert all(running.ask() for _ in range(50))

    (message,) = running.good.posted
    said = json.loads(message.body)
    assert said["event.action"] == "forged_token"
    assert said["authz.occurrences"] == 30
    assert "source.ip" not in said
    until(lambda: running.count("sent") == 2, "the good and the endless one to be counted")

    # The file that the service watches: one more event, told once, whatever the workers are.
    text = running.service.config.read_text()
    running.service.config.write_text(text.replace("max_lifetime: 30d", "max_lifetime: 29d"))
    running.service.signal(signal.SIGHUP)
    until(lambda: len(running.good.posted) == 2, "the next message")
    assert json.loads(running.good.posted[1].body)["event.action"] == "configuration_changed"
    assert all(running.ask() for _ in range(50))

    running.service.process.terminate()
    assert running.service.process.wait(60) == 0
    lost = running.service.events("notification_lost")
    assert "hanging" in {each["target"] for each in lost}
    assert "hunter2" not in json.dumps(running.service.lines)
    assert len(running.good.posted) == 2
