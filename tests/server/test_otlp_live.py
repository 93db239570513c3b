"""Traces, metrics and logs of the real service behind a real Envoy, as a receiver gets them."""

import http.client
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from authz.config.endpoints import Tcp, Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import running_envoy
from tests.support.otlp_receiver import Receiver, grpc_receiver, http_receiver, texts
from tests.support.service import ServiceProcess, running_issuer, running_service, until
from tests.support.transports import installed
from tests.tokens.token_factory import rsa_signer

CONFIG: Final = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d, deadline: 30s}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0', refusals: http_status}}
service: {{transport: {transport}, drain_notice: 0s}}
telemetry: {{log: json, otlp: {{endpoint: '{endpoint}', {otlp}}}}}
servers:
  files: {{upstream: http://files:8000/mcp, tools: {{"read_*": {{}}}}}}
"""
STRANGER: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# Nothing of these may reach a collector.
ARGUMENT, SESSION, PERSON = "an-argument-of-a-tool", "a-session-of-a-server", "john@example.test"
CODE: Final = "a-code-of-a-log-in"


@dataclass
class Traced:
    """What runs, and who listens."""

    receiver: Receiver
    service: ServiceProcess
    upstream: edge.EdgeUpstream
    port: int
    token: str

    def call(self, tool: str, token: str | None = None) -> int:
        """Call a tool; return the status."""
        message = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": {"path": ARGUMENT}},
        }  # fmt: skip
        headers = {
            "host": "mcp.example.test", "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {self.token if token is None else token}",
            "mcp-protocol-version": "2025-11-25", "mcp-session-id": SESSION,
            "traceparent": STRANGER,
        }  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/files", json.dumps(message).encode(), headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def visit(self, path: str) -> int:
        """Open a page; return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers={"host": "mcp.example.test"})
            return connection.getresponse().status
        finally:
            connection.close()

    def span(self, **wanted: str) -> Span:
        """Return our span of a check with these attributes, once it has come."""
        until(lambda: bool(self._checks(wanted)), f"a span with {wanted}")
        return self._checks(wanted)[0]

    def _checks(self, wanted: dict[str, str]) -> list[Span]:
        return [
            each
            for each in self.receiver.spans()
            if each.name.startswith("authorize")
            and wanted.items() <= texts(list(each.attributes)).items()
        ]

    def dropped(self) -> list[str]:
        lines = self.service.get("/metrics")[1].splitlines()
        return [line for line in lines if line.startswith("authz_otlp_dropped_total")]


@contextmanager
def traced(receiver: Receiver, transport: str, otlp: str) -> Iterator[Traced]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="o")))
        issuer = stack.enter_context(running_issuer())
        config = CONFIG.format(
            issuer=issuer.address, transport=transport, endpoint=receiver.address, otlp=otlp
        )
        env = {"PATH": os.environ["PATH"]}
        service = stack.enter_context(running_service(folder, config, env))
        service.wait_ready()
        upstream, port = stack.enter_context(edge.upstream(("127.0.0.1", 0)))
        where = Topology(
            authz=(Unix(f"{folder}/check.sock"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Tcp("127.0.0.1", port)},
        )
        rendered = render(edge.patient_settings(config), where)
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        now = int(time.time())
        claims = {"iat": now, "nbf": now, "exp": now + 3600, "email": PERSON}
        token = rsa_signer().token(claims)
        yield Traced(receiver, service, upstream, envoy.port("gateway"), token)


@pytest.fixture(scope="module")
def by_http() -> Iterator[Traced]:
    """All is kept, Envoy traces too."""
    with http_receiver() as receiver:
        otlp = "sample: 1, metrics: true, logs: true, interval: 1s, envoy: true"
        with traced(receiver, "grpcio", otlp) as found:
            yield found


@pytest.fixture(scope="module")
def by_grpc() -> Iterator[Traced]:
    """Nothing is kept but for a reason; our spans are told to the server, Envoy makes none."""
    otlp = "protocol: grpc, sample: 0, propagate: true, keep: {slower_than: 1h}"
    with grpc_receiver() as receiver, traced(receiver, installed("ngh2"), otlp) as found:
        yield found


def test_a_call_is_one_trace_from_envoy_to_the_server(by_http: Traced) -> None:
    """Our span is below Envoy's that asked, with its stages; the server is told of the same trace,
    and a client's own context, which Envoy was to keep by its flag, is not gone on with.
    """
    assert by_http.call("read_file") == 200
    span = by_http.span(**{"authz.verdict": "allow", "gen_ai.tool.name": "read_file"})
    until(lambda: bool(by_http.receiver.spans("authz-envoy")), "Envoy's spans")
    envoys = by_http.receiver.spans("authz-envoy")
    assert span.parent_span_id in {each.span_id for each in envoys}
    (told,) = by_http.upstream.arrived[-1].values("traceparent")
    assert told.split("-")[1] == span.trace_id.hex()
    assert span.trace_id.hex() not in STRANGER
    below = [each for each in by_http.receiver.spans() if each.parent_span_id == span.span_id]
    assert {"read", "token", "rules", "ledger", "answer"} <= {each.name for each in below}
    said = texts(list(span.attributes))
    assert said["mcp.method.name"] == "tools/call"
    assert said["authz.kept"] == "parent"
    assert len(said["mcp.session.id"]) == 16
    assert span.name == "authorize tools/call"


def test_a_key_fetch_is_a_span(by_http: Traced) -> None:
    """What was asked of the issuer, by path and status."""
    until(
        lambda: "GET /jwks.json" in {each.name for each in by_http.receiver.spans()},
        "the span of the key fetch",
    )


def test_the_log_has_the_trace_and_the_collector_the_line(by_http: Traced) -> None:
    """A line of the log leads to its trace, on standard output and by OTLP."""
    assert by_http.call("delete_file") == 403
    span = by_http.span(**{"authz.reason": "tool_not_allowed"})
    lines = by_http.service.events("decision")
    assert span.trace_id.hex() in {line.get("trace_id") for line in lines}
    until(
        lambda: span.trace_id in {each.trace_id for each in by_http.receiver.logs()},
        "the line by OTLP",
    )


def test_figures_arrive_without_a_prometheus(by_http: Traced) -> None:
    """Those of /metrics, under the same names."""
    by_http.call("read_file")
    until(
        lambda: any(
            point.as_double > 0
            for point in by_http.receiver.metrics()["authz_decisions_total"].sum.data_points
        ) if "authz_decisions_total" in by_http.receiver.metrics() else False,
        "the count of decisions",
    )  # fmt: skip


@pytest.mark.attack("OTLP: a stranger forces sampling by traceparent")
def test_a_refusal_is_kept_where_nothing_is_and_a_strangers_wish_is_not(by_grpc: Traced) -> None:
    """At a sample of 0: the allowed call, sampled by its client's flag, is not sent; the refused
    one is, below the client's span. The server is told of our span, unsampled.
    """
    assert by_grpc.call("read_file") == 200
    assert by_grpc.call("delete_file") == 403
    span = by_grpc.span(**{"authz.reason": "tool_not_allowed"})
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == tuple(STRANGER.split("-")[1:3])
    assert texts(list(span.attributes))["authz.kept"] == "refusal"
    checks = [each for each in by_grpc.receiver.spans() if each.name.startswith("authorize")]
    assert {texts(list(each.attributes))["authz.verdict"] for each in checks} == {"deny"}
    (told,) = by_grpc.upstream.arrived[-1].values("traceparent")
    _, trace_id, span_id, flags = told.split("-")
    assert (trace_id, flags) == (STRANGER.split("-")[1], "00")
    assert span_id != STRANGER.split("-")[2]
    assert len(by_grpc.dropped()) == 15


@pytest.mark.process  # by hand: no fixture of this test is named in its signature
@pytest.mark.envoy
@pytest.mark.parametrize("which", ["by_http", "by_grpc"])
def test_no_argument_token_session_or_person_is_sent(
    which: str, request: pytest.FixtureRequest
) -> None:
    """Nothing of what a caller holds secret is in any byte that a collector got, refused or not."""
    found: Traced = request.getfixturevalue(which)
    for tool, token in (("read_file", None), ("delete_file", None), ("delete_x", "a.b.c")):
        found.call(tool, token)
    found.visit(f"/authz/callback?code={CODE}")
    found.visit(f"/files?code={CODE}")
    found.span(**{"gen_ai.tool.name": "delete_file"})
    found.span(**{"authz.reason": "token_invalid"})
    sent = b"".join(body for _, body in list(found.receiver.bodies))
    signature = found.token.rpartition(".")[2]
    for secret in (ARGUMENT, SESSION, PERSON, CODE, found.token, signature):
        assert secret.encode() not in sent
