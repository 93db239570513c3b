"""A request to the pages as a trace, with what it asked of Authelia."""

import asyncio
import io
import json
from typing import cast

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.login.web.app import LoginApp
from authz.login.web.error_pages import ErrorResponder
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.traced_http import traced_by
from authz.telemetry.traces import KeepOptions, Span, SpanKind, Tracer

CODE = "a-code-of-a-log-in"
STRANGER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def test_a_request_is_a_span_above_its_calls_to_authelia() -> None:
    """By its declared path; the line of the log has the trace; codes are nowhere."""
    kept: list[tuple[Span, ...]] = []
    stream = io.StringIO()
    recorder = Recorder(Metrics(), EventLog("json", stream))
    recorder.tracer = Tracer(KeepOptions(sample=1.0), kept.append, lambda: None)
    wrap = traced_by(recorder.tracer)
    assert wrap is not None
    authelia = wrap(httpx.MockTransport(lambda _: httpx.Response(200)))

    async def token(_: Request) -> Response:
        async with httpx.AsyncClient(transport=authelia) as client:
            await client.post("http://authelia:9091/api/oidc/token", data={"code": CODE})
        recorder.event("log_in", step="token", outcome="ok")
        return Response("{}")

    routes = [Route("/token", token, methods=["POST"])]
    app = LoginApp(routes, cast("ErrorResponder", None), recorder)

    async def go() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://mcp") as client:
            headers = {"traceparent": STRANGER}
            await client.post(f"/token?code={CODE}", data={"code": CODE}, headers=headers)

    asyncio.run(go())
    ((request, call),) = kept
    assert (request.name, request.kind) == ("POST /token", SpanKind.SERVER)
    assert (call.name, call.parent_id) == ("POST /api/oidc/token", request.span_id)
    assert {request.trace_id, call.trace_id} == {STRANGER.split("-")[1]}
    assert dict(request.attributes)["http.response.status_code"] == 200
    assert json.loads(stream.getvalue())["trace_id"] == request.trace_id
    assert CODE not in repr(kept)


@pytest.mark.parametrize("path", [f"/{CODE}", f"/token/{CODE}"])
def test_a_path_that_is_none_of_ours_is_no_name(path: str) -> None:
    """What strangers ask for is not what a span is called."""
    kept: list[tuple[Span, ...]] = []
    recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
    recorder.tracer = Tracer(KeepOptions(sample=1.0), kept.append, lambda: None)

    class Errors:
        def show(self, *_: object) -> Response:
            return Response("", 404)

    app = LoginApp([], cast("ErrorResponder", Errors()), recorder)

    async def go() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://mcp") as client:
            await client.get(path)

    asyncio.run(go())
    ((span,),) = kept
    assert span.name == "GET"
    assert CODE not in repr(kept)
