"""The signed identity, whole: a real Envoy, the official server of SDK 2.x with the middleware that
we ship, and the keys where the service publishes them.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz.config.key_files import make_key
from authz.process.service import ServiceSpec
from authz_demo.environment import Location, write_environment
from authz_demo.reporter import Reporter, headers, message
from authz_demo.scenario import Scenario
from tests.support.demo_environment import RunningEnvironment
from tests.support.ports import held_port

ROOT = Path(__file__).resolve().parents[2]


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def signed(short: Path) -> Iterator[RunningEnvironment]:
    """Return the running whole, whose `notes` takes signed identities and nothing else."""
    place = Location(
        short / "w",
        domain="example.test",
        public_port=443,
        port=held_port(),
        metrics=held_port(),
        issuer_port=held_port(),
    )
    keys = [short / name for name in ("identity.pem", "other.pem")]
    for key in keys:
        make_key(key)

    def change(text: str) -> str:
        named = f"  identity_key_file: {keys[0]}\n  identity_other_key_file: {keys[1]}\n"
        text = text.replace("gateway:\n", f"gateway:\n{named}", 1)
        return text.replace("  notes:\n", "  notes:\n    identity: signed\n", 1)

    environment = write_environment(place, None, change)
    published = f"http://127.0.0.1:{place.metrics}/identity-keys"
    command = (
        sys.executable, "-m", "tests.support.signed_sample", str(place.folder / "notes.sock"),
        published, place.gateway, f"{place.gateway}/notes",
    )  # fmt: skip

    def swapped(part: ServiceSpec) -> ServiceSpec:
        if part.name != "notes":
            return part
        return replace(part, argv=command, env={**part.env, "PYTHONPATH": str(ROOT)})

    services = tuple(map(swapped, environment.extras.services))
    running = RunningEnvironment(
        replace(environment, extras=replace(environment.extras, services=services))
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()


def called(tool: str, **more: object) -> tuple[dict[str, Any], dict[str, str]]:
    body = message("tools/call", {"name": tool, "arguments": {}, **more})
    meta = body["params"]["_meta"]
    meta["io.modelcontextprotocol/clientCapabilities"] = {"elicitation": {"form": {}}}
    return body, headers(body)


def said(answer: httpx.Response) -> dict[str, Any]:
    lines = [line[6:] for line in answer.text.splitlines() if line[:6] == "data: "]
    found: dict[str, Any] = json.loads(lines[-1] if lines else answer.text)
    return found


@pytest.mark.attack("state-of-another")
def test_the_official_server_believes_the_signature_alone(signed: RunningEnvironment) -> None:
    """It knows its caller by a key set that it fetched inside, with both keys of a rotation, and
    refuses another's requestState. What a caller forges does not reach it, and past the gateway
    nobody is anybody. The gateway itself has no key set, under any of its names.
    """

    async def go() -> None:
        place, who = signed.environment.place, signed.environment.who
        async with signed.network.browser() as http:
            scenario = Scenario(signed.environment, Reporter(quiet), signed.network, http)
            await scenario.call("notes", "demo", who.john, "whoami")
            await scenario.call("notes", "password-only", who.bob, "whoami")
            john, bob = (scenario.tokens[f"{each} notes"] for each in ("demo", "password-only"))

            async def post(
                token: str, tool: str, forged: Mapping[str, str] | None = None, **more: object
            ) -> dict[str, Any]:
                body, mirrors = called(tool, **more)
                sent = {**mirrors, "authorization": f"Bearer {token}", **(forged or {})}
                return said(await http.post(f"{scenario.gateway}/notes", json=body, headers=sent))

            async def subject(token: str, forged: Mapping[str, str] | None = None) -> str:
                result = (await post(token, "whoami", forged))["result"]
                return str(json.loads(result["content"][0]["text"])["x-authz-subject"])

            asked = (await post(john, "read_diary"))["result"]
            (name,) = asked["inputRequests"]
            answer = {"action": "accept", "content": {"really": True}}
            more = {"inputResponses": {name: answer}, "requestState": asked["requestState"]}
            assert "error" in await post(bob, "read_diary", **more)
            forged = {"x-authz-subject": await subject(john), "x-authz-identity": "e30.e30.e30"}
            assert await subject(bob, forged) == await subject(bob)
            assert await subject(bob) != await subject(john)
            assert "error" in await post(bob, "read_diary", forged, **more)
            told = (await post(john, "read_diary", **more))["result"]
            assert told["content"][0]["text"] == "Dear diary."

            for path in ("/identity-keys", "/notes/identity-keys", "/authz/identity-keys"):
                for origin in (place.gateway, place.issuer):
                    outside = await http.get(f"{origin}{path}")
                    assert outside.status_code in {400, 401, 403, 404}
                    assert "kid" not in outside.text

        past = httpx.AsyncHTTPTransport(uds=str(place.folder / "notes.sock"))
        async with httpx.AsyncClient(transport=past, base_url="http://notes") as direct:
            body, mirrors = called("whoami")
            plain = {"x-authz-issuer": place.issuer, "x-authz-client": "demo"}
            for more_headers in ({}, plain, plain | {"x-authz-identity": "e30.e30.e30"}):
                answered = await direct.post("/mcp", json=body, headers=mirrors | more_headers)
                assert answered.status_code == 403
        async with httpx.AsyncClient(timeout=30) as inside:
            found = await inside.get(f"http://127.0.0.1:{place.metrics}/identity-keys")
        assert found.headers["content-type"] == "application/jwk-set+json"
        keys = found.json()["keys"]
        assert len({key["kid"] for key in keys}) == 2
        assert all("d" not in key for key in keys)

    asyncio.run(go())
