"""A log-in of the official client through the real Envoy, told from the logs of all programs, and
the gateway as `authz doctor --outside` sees it.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import pytest

from authz.cli.connections import collect
from authz.doctor import outside
from authz.doctor.finding import Severity
from authz.doctor.outside_http import OutsideClient
from authz.telemetry.connection_events import Stage
from authz.telemetry.connections import Story
from authz.telemetry.log_reader import find_request
from tests.support.door import Door, assistant, play
from tests.support.service import until


def logged(door: Door) -> list[bytes]:
    """Return the lines of all programs; Envoy writes what it holds when it is asked to."""
    logs = sorted(door.running.state.rglob("*.log"))
    return [line for log in logs for line in log.read_bytes().splitlines()]


def test_a_log_in_is_one_story_from_the_first_401_to_the_first_call(door: Door) -> None:
    """Challenge, documents, registration, consent, Authelia, token, call; and then it is done."""
    found = list[Story]()

    async def game() -> None:
        async with assistant(door, door.john, "Story") as client:
            await client.whoami("files", "legacy")
            address = client.network.source

        def told() -> bool:
            stories = collect(logged(door), 0).stories()
            found[:] = [story for story in stories if address in story.networks]
            return any(
                {Stage.CALL, Stage.DOCUMENT} <= {event.stage for event in story.events}
                for story in found
            )

        await asyncio.to_thread(until, told, "a story")

    play(game)
    (story,) = found
    # It registers itself, so no document of its own is fetched.
    others = {Stage.REFRESH, Stage.CLIENT_DOCUMENT}
    assert {event.stage for event in story.events} >= set(Stage) - others
    assert {event.outcome for event in story.events} <= {"ok", "token_missing", "not_found"}
    assert (story.reached().stage, story.reached().outcome) == (Stage.CALL, "ok")
    assert (story.client, story.server) == ("dynamic/loopback", "files")
    assert story.subject
    for event in story.events:
        lines = find_request(logged(door), event.request_id)
        assert lines.access is not None or lines.decision is not None or lines.steps


@pytest.mark.parametrize("server", ["notes", "files"])
def test_the_gateway_is_what_an_assistant_needs(door: Door, server: str) -> None:
    """Under its own name and with its own authority nothing is wrong; a server that is none is."""
    environment = door.running.environment

    async def resolve(_: str) -> Sequence[str]:
        return ["127.0.0.1"]

    def look(url: str) -> dict[str, Any]:
        trust = ssl.create_default_context(cafile=str(environment.certificates.authority))
        client = OutsideClient(resolve, private=True, trust=trust, port=environment.place.port)
        findings = asyncio.run(outside.examine(url, client))
        return {each.diagnosis: each.severity for each in findings}

    good = look(door.url(server))
    for name in ("tls", "challenge", "document", "resource", "token_endpoint"):
        assert good[name] is Severity.OK
    assert Severity.PROBLEM not in good.values()
    assert look(door.at("/nothing"))["not_found"] is Severity.PROBLEM
