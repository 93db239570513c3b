"""Attacks that succeeded once, on what stood here then: findings of a review, a test for each.

Each test failed before its finding was fixed, for the reason that its docstring gives.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from authz.config.load import Settings, load
from authz.core import mcp
from authz.core.answers import upstream
from authz.core.decision import Allow, BearerRequest, PendingDecision, authorize, conclude, read
from authz.core.ledger import Mode, Taken, UnavailableError
from authz.core.mcp import Message, MessageKind
from authz.core.policy import DeclaredClient
from authz.core.request import RefusedError
from authz.envoy import codec
from authz.server.assemble import Assembly
from authz.server.grpc import GrpcTransport
from authz.server.service import Listeners, Service
from authz.telemetry.audit import EventLog, as_text, describe
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.jwk import DEFAULT_ALGORITHMS, read_key_set
from authz.tokens.keys import Presented
from tests.support.gateway import GATEWAY, GOOD, running_gateway, tls
from tests.support.service import PATIENCE, KeyIssuer, running_issuer, running_service, until
from tests.support.values import NOW, policy, principal, request, rpc, server
from tests.support.wild_client import http2
from tests.support.wire import check_request
from tests.tokens.token_factory import rsa_signer

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: '{issuer}', deadline: {deadline}}}
gateway: {{url: https://mcp.example.test}}
telemetry: {{log: json}}
service: {{transport: grpcio}}
servers:
  files: {{upstream: 'http://127.0.0.1:9/mcp', groups: {groups}}}
"""


def config(path: Path, issuer: str, groups: str = "[staff]", deadline: str = "2s") -> Path:
    path.write_text(CONFIG.format(issuer=issuer, groups=groups, deadline=deadline))
    return path


def recorder() -> Recorder:
    return Recorder(Metrics(), EventLog("json"))


def processor_time(work: Callable[[], object]) -> float:
    """Return the least processor time of many runs, in seconds: what others do does not count.

    Not of a few: who shares the processor's caches slows all of a quarter of a second.
    """
    times = []
    for _ in range(30):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


# --- who is limited -----------------------------------------------------------------------------


@pytest.mark.attack("forged-address")
def test_behind_a_trusted_proxy_each_client_has_an_address_of_its_own() -> None:
    """Envoy says whom it trusts to be the client; the proxy in front is not everybody."""
    sent = request(address="127.0.0.1", x_envoy_external_address="198.51.100.7")

    assert codec.decode(check_request(sent)).address == "198.51.100.7"


# --- what strangers and callers cost ------------------------------------------------------------


@pytest.mark.attack("strangers-cost-nothing")
@pytest.mark.parametrize("unit", ["&", "%&", "%ff&"])
def test_a_query_costs_a_stranger_more_than_us(unit: str) -> None:
    """31 KiB of query, which Envoy lets through, are looked at in less than 3 ms."""
    sent = request(path="/files?" + (unit * 31_744)[:31_744], authorization=None)

    assert processor_time(lambda: read(sent, policy())) < 0.003


@pytest.mark.slow
@pytest.mark.attack("mcp-json")
@pytest.mark.parametrize("unit", [b"[[[[]]]],", b"{},", b"0,"], ids=["nested", "objects", "ints"])
def test_one_body_stops_nobody_else(unit: bytes) -> None:
    """The largest body takes no more than some times what json takes for a megabyte of integers."""
    filler = unit * (1_000_000 // len(unit))
    body = rpc("tools/call", name="x", arguments=[]).replace(b"[]", b"[" + filler + b"0]")
    headers = {"content-type": "application/json"}

    def reading() -> None:
        with suppress(RefusedError):
            mcp.read(body, headers, max_body=1 << 20)

    integers = b"[" + b"0," * 500_000 + b"0]"
    assert processor_time(reading) < 4 * processor_time(lambda: json.loads(integers))


# --- what the upstream is told ------------------------------------------------------------------


@pytest.mark.attack("narrowed-scopes")
def test_the_upstream_learns_no_scope_that_the_client_may_not_use() -> None:
    """A scope that the operator took from a client is not shown to the server as granted."""
    narrow = policy(server(), DeclaredClient("claude", scopes=frozenset({"mcp:files"})))
    token = principal(scopes=frozenset({"mcp:files", "mcp:files:write"}))
    call = read(request(), narrow)
    assert isinstance(call, BearerRequest)
    pending = authorize(call, token, narrow, NOW)
    assert isinstance(pending, PendingDecision)
    allow = conclude(pending, Taken((), Mode.REDIS))
    assert isinstance(allow, Allow)

    assert dict(upstream(allow, policy(), 0).set_headers)["x-authz-scopes"] == "mcp:files"


@pytest.mark.attack("body-games")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_without_post_reaches_nobody_over_http2(method: str) -> None:
    """A body that nobody judged does not arrive at a server, whatever announces it."""
    with running_gateway() as gateway:
        fields = {":method": method, ":scheme": "https", ":authority": GATEWAY, ":path": "/files"}
        fields |= {GOOD[0]: GOOD[1], "content-type": "application/json"}
        http2(replace(gateway.send, tls=tls("h2")), *fields.items(), body=rpc("tools/call"))
        arrived = [each.body for each in gateway.servers["files"].arrived]
        judged = [each.body for each in gateway.authz.checks if each is not None]

    # Refused, or judged as a whole.
    assert arrived in ([], judged)


# --- what is trusted, and for how long ----------------------------------------------------------


@pytest.mark.attack("keys-too-old")
def test_keys_older_than_their_maximum_verify_nothing(tmp_path: Path) -> None:
    """Whoever cuts us off from the issuer must not keep a withdrawn key alive for ever."""

    async def run() -> None:
        settings = load(config(tmp_path / "authz.yaml", "http://127.0.0.1:9"), {})
        assembly = Assembly(settings, {}, recorder())
        keys = assembly.identity.keys
        published = read_key_set({"keys": [rsa_signer().jwk()]}, DEFAULT_ALGORITHMS)
        keys._install(published, time.monotonic())
        # The issuer has not answered for a month; max_age is a day.
        later = time.monotonic() + 30 * 86_400
        keys._clock = lambda: later
        assert assembly.identity.problem()
        try:
            await keys.key("mcp-rs256", "RS256", Presented(b"", 0.0))
            trusted = True
        except UnavailableError:
            trusted = False
        await assembly.aclose()

        assert not trusted

    asyncio.run(run())


# --- operation ----------------------------------------------------------------------------------


@pytest.mark.attack("two-reloads")
def test_the_last_configuration_wins(tmp_path: Path) -> None:
    """A rule that was tightened while an earlier reload still waited is not undone by that one."""

    async def run(issuer: KeyIssuer) -> None:
        path = config(tmp_path / "authz.yaml", issuer.address, "[staff]")
        where = Listeners(f"unix:{tmp_path}/check", ("127.0.0.1", 0))
        read_so_far: list[Settings] = []

        def loading() -> Settings:
            read_so_far.append(load(path, {}))
            return read_so_far[-1]

        service = Service(loading, {}, where, recorder(), 0.1, transport=GrpcTransport)
        running = asyncio.create_task(service.run())
        await service.started.wait()
        # An internal address that does not answer yet: its keys are waited for.
        config(path, "http://127.0.0.1:9", "[staff, everybody]", "1s")
        slow = asyncio.create_task(service.reload())
        while len(read_so_far) < 2:  # noqa: ASYNC110 - it is read in a thread
            await asyncio.sleep(0.01)
        config(path, issuer.address, "[admins]", "1s")
        assert await service.reload()
        await slow
        groups = service.check.snapshot.policy.servers["files"].rule.groups
        service.stop()
        await running
        renewing = [task for task in asyncio.all_tasks() if "SigningKeys" in str(task.get_coro())]

        assert groups == frozenset({"admins"})
        assert renewing == []

    with running_issuer() as issuer:
        asyncio.run(run(issuer))


@pytest.mark.attack("address-in-use")
def test_a_service_that_cannot_listen_ends(tmp_path: Path) -> None:
    """An address that cannot be bound is an error with an exit status, never a silent hang."""
    path = config(tmp_path / "authz.yaml", "http://127.0.0.1:9")
    command = [sys.executable, "-m", "authz", "serve", "-c", str(path)]
    command += ["--check", f"unix:{tmp_path}/no/such/folder", "--status", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        status: int | None = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        status = None
        process.kill()
        process.wait()

    assert status


@pytest.mark.attack("rolling-restart")
def test_a_draining_service_still_answers_who_comes(tmp_path: Path) -> None:
    """Between NOT_SERVING and the moment when Envoy has heard of it, requests are answered."""
    with running_issuer() as issuer:
        path = config(tmp_path / "authz.yaml", issuer.address)
        with running_service(tmp_path, path.read_text(), {}) as service:
            service.wait_ready()
            issuer.hold.clear()
            token = rsa_signer("new-kid").token({"iat": int(time.time())})
            waiting = service.begin(check_request(request(authorization=f"Bearer {token}")))
            until(lambda: "authz_checks_in_flight 1.0" in service.get("/metrics")[1], "one")
            service.process.terminate()
            service.wait_for("draining")
            statuses = []
            with suppress(grpc.RpcError):
                # One could slip in before the listener closes; thirty could not.
                for _ in range(30):
                    sent = check_request(request(authorization=None))
                    statuses.append(service.check(sent).status)
            issuer.hold.set()
            waiting.result()

    assert statuses == [401] * 30


# --- the log ------------------------------------------------------------------------------------


@pytest.mark.attack("log-line-forged")
def test_a_tool_cannot_write_fields_of_the_readable_line() -> None:
    """In the line for people a caller's value is one value, blanks and signs included."""
    message = Message(MessageKind.REQUEST, "tools/call", 1, "x reason=allowed subject=admin", None)
    allow = Allow(server(), message, principal(), (), Mode.REDIS)
    line = as_text(describe(allow, request(), 0), 0.0)

    assert " subject=admin" not in line.replace('"x reason=allowed subject=admin"', "")
