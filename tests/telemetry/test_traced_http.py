"""Calls by httpx as spans: the call goes on as it would, and its secrets stay out."""

import asyncio

import httpx
import pytest

from authz.telemetry.traced_http import traced_by
from authz.telemetry.traces import CURRENT, KeepOptions, Span, Tracer

SECRET = "s3cret"


def answering(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/away":
        raise httpx.ConnectError(SECRET)
    return httpx.Response(503 if request.url.path == "/broken" else 200)


async def ask(tracer: Tracer, path: str) -> int:
    wrap = traced_by(tracer)
    assert wrap is not None
    async with httpx.AsyncClient(transport=wrap(httpx.MockTransport(answering))) as client:
        found = await client.post(
            f"http://issuer:9091{path}?code={SECRET}", content=SECRET, headers={"x": SECRET}
        )
        return found.status_code


def test_without_a_tracer_a_client_is_as_it_was() -> None:
    """Nothing is put around what carries the requests."""
    assert traced_by(None) is None


def test_a_call_is_beside_the_stages_of_what_is_under_way() -> None:
    """With method, path, place and status; a failure by its class or status, and it goes on."""
    kept: list[tuple[Span, ...]] = []
    tracer = Tracer(KeepOptions(sample=1.0), kept.append, lambda: None)

    async def go() -> None:
        trace = tracer.begin("", 0.0)
        CURRENT.set(trace)
        assert await ask(tracer, "/token") == 200
        assert await ask(tracer, "/broken") == 503
        with pytest.raises(httpx.ConnectError):
            await ask(tracer, "/away")
        tracer.finish(trace, "authorize", 1.0, (), "")

    asyncio.run(go())
    ((_, *calls),) = kept
    assert [(each.name, each.error) for each in calls] == [
        ("POST /token", ""), ("POST /broken", "503"), ("POST /away", "ConnectError"),
    ]  # fmt: skip
    said = dict(calls[0].attributes)
    assert (said["server.address"], said["server.port"]) == ("issuer", 9091)
    assert said["http.response.status_code"] == 200
    assert SECRET not in repr(calls)


def test_a_call_of_nobody_is_a_trace_of_its_own() -> None:
    """As the renewal of keys; where nothing is sampled, only one that failed."""
    kept: list[tuple[Span, ...]] = []
    tracer = Tracer(KeepOptions(sample=0.0), kept.append, lambda: None)
    asyncio.run(ask(tracer, "/token"))
    asyncio.run(ask(tracer, "/broken"))
    ((span,),) = kept
    assert span.name == "POST /broken"
