"""The whole, end to end: the walk, what tests write into the ledger, older clients, sabotage."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz.core.ledger import StepUpKey
from authz.core.principal import Person as PersonName
from authz.core.second_factor import Method
from authz.ledger.keys import token_field
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.local.state import State
from authz.local.valkey import USER
from authz_demo.reporter import Reporter, expect, headers, message, reason_of
from authz_demo.scenario import Scenario, run_scenario
from tests.support.demo_environment import RunningEnvironment, running_environment
from tests.support.service import until

ROOT = Path(__file__).resolve().parents[2]
MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"


def quiet(_: str) -> None:
    """Say nothing."""


async def begin_scenario(whole: RunningEnvironment, http: httpx.AsyncClient) -> Scenario:
    return Scenario(whole.environment, Reporter(quiet), whole.network, http)


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def ledger(whole: RunningEnvironment) -> RedisLedger:
    """Return a writer's view of the embedded Valkey."""
    state = State(whole.state)
    password = state.redis_password.read_text().strip()
    url = f"unix://{state.socket('valkey')}"
    return RedisLedger(RedisOptions(url, USER, password, timeout=20))


@pytest.mark.usefixtures("direct_clients")
def test_the_walk_goes_as_it_should(whole: RunningEnvironment) -> None:
    """Every step of the demonstration passes, with the official client over TLS 1.3."""
    assert asyncio.run(run_scenario(whole.environment, quiet)) == []


SABOTAGE = {
    "and refused where a second factor is asked": ("    second_factor: any\n", ""),
    "A tool that needs another scope": (
        "        scopes: [mcp:notes:write]\n",
        "        groups: [x]\n",
    ),
    "A flood": ("rate: 5/5 seconds", "rate: 50/5 seconds"),
}


@pytest.mark.usefixtures("direct_clients")
def test_the_walk_notices_every_sabotaged_rule(short: Path) -> None:
    """A walk that cannot fail proves nothing: with a rule taken out, its step goes otherwise."""

    def sabotaged(text: str) -> str:
        for rule, instead in SABOTAGE.values():
            assert rule in text
            text = text.replace(rule, instead)
        return text

    lines: list[str] = []
    with running_environment(short / "s", change=sabotaged) as running:
        failed = asyncio.run(run_scenario(running.environment, lines.append))

    assert len(failed) == len(SABOTAGE), failed
    for step in SABOTAGE:
        assert any(step in each for each in failed), (step, failed)


@pytest.mark.usefixtures("direct_clients")
def test_a_step_up_record_lets_its_person_client_and_server_through(
    whole: RunningEnvironment,
) -> None:
    """What is missing is a record in the ledger: with it the same token is admitted."""

    async def go() -> None:
        async with whole.network.browser() as http:
            scenario = await begin_scenario(whole, http)
            token = await scenario.log_in("files", "password-only", whole.environment.who.bob)
            before = await scenario.initialize("files", token)
            assert reason_of(before) == "second_factor_required"

            said = claims(token)
            key = StepUpKey(PersonName(said["iss"], said["sub"]), "password-only", "files")
            store = ledger(whole)
            await store.record_step_up(key, Method.ANY, int(time.time()), ttl=60)

            expect(await scenario.initialize("files", token), 200)

            other = StepUpKey(PersonName(said["iss"], said["sub"]), "demo", "files")
            await store.record_step_up(key, Method.NONE, int(time.time()), ttl=60)
            await store.record_step_up(other, Method.TOTP, int(time.time()), ttl=60)
            after = await scenario.initialize("files", token)
            assert reason_of(after) == "second_factor_required"
            await store.aclose()

    asyncio.run(go())


@pytest.mark.attack("revoked-token")
@pytest.mark.usefixtures("direct_clients")
def test_a_revoked_token_is_refused_from_the_next_request_on(whole: RunningEnvironment) -> None:
    """A revocation in the ledger ends a token that is cached, and lifting it brings it back."""

    async def go() -> None:
        async with whole.network.browser() as http:
            scenario = await begin_scenario(whole, http)
            await scenario.call("notes", "demo", whole.environment.who.john, "whoami")
            token = scenario.tokens["demo notes"]
            expect(await scenario.tool("notes", "whoami", token), 200)

            signed = token.rpartition(".")[0]
            target = token_field(hashlib.sha256(signed.encode()).hexdigest())
            store = ledger(whole)
            await store.revoke(target, Revocation())

            refused = await scenario.tool("notes", "whoami", token)
            assert (refused.status_code, reason_of(refused)) == (401, "token_revoked")
            await store.lift(target)
            expect(await scenario.tool("notes", "whoami", token), 200)
            await store.aclose()

    asyncio.run(go())


LEGACY = "2025-11-25"


async def in_session(
    scenario: Scenario, token: str, session: str = "", method: str = "", **params: object
) -> httpx.Response:
    """POST a message of the older era to `files`; without a method, a response."""
    sent: dict[str, object] = {"jsonrpc": "2.0", "id": 7}
    sent |= {"method": method, "params": params} if method else {"result": {"action": "accept"}}
    if method.startswith("notifications/"):
        del sent["id"]
    return await scenario.http.post(
        f"{scenario.gateway}/files", json=sent, headers=plain(token, session)
    )


def plain(token: str, session: str = "", **more: str) -> dict[str, str]:
    found = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": LEGACY,
    } | more
    return found | {"mcp-session-id": session} if session else found


@pytest.mark.attack("session-of-another")
@pytest.mark.usefixtures("direct_clients")
def test_a_session_of_the_official_server_is_its_owners(whole: RunningEnvironment) -> None:
    """Another's call, response, stream and DELETE end at the gateway; the session lives on."""

    async def go() -> None:
        async with whole.network.browser() as http:
            scenario = await begin_scenario(whole, http)
            await scenario.call("files", "demo", whole.environment.who.john, "whoami", "legacy")
            john = scenario.tokens["demo files"]
            machine = await scenario.machine_token("files")
            hello = {"protocolVersion": LEGACY, "capabilities": {}}
            begun = await in_session(
                scenario, john, "", "initialize", **hello, clientInfo={"name": "t", "version": "1"}
            )
            session = begun.headers["mcp-session-id"]
            told = await in_session(scenario, john, session, "notifications/initialized")
            assert (begun.status_code, told.status_code) == (200, 202)

            url = f"{scenario.gateway}/files"
            foreign = [
                await in_session(
                    scenario, machine, session, "tools/call", name="whoami", arguments={}
                ),
                await in_session(
                    scenario, machine, session, "notifications/cancelled", requestId=1
                ),
                await in_session(scenario, machine, session),
                await http.get(url, headers=plain(machine, session)),
                await http.get(url, headers=plain(machine, session, **{"last-event-id": "1"})),
                await http.delete(url, headers=plain(machine, session)),
            ]
            for answer in foreign:
                assert (answer.status_code, reason_of(answer)) == (404, "session_of_another")

            again = await in_session(scenario, john, session, "tools/list")
            assert again.status_code == 200
            ended = await http.delete(url, headers=plain(john, session))
            assert ended.status_code == 200
            # It stays bound, so nobody can begin to use the same id.
            late = await in_session(scenario, machine, session, "tools/list")
            assert reason_of(late) == "session_of_another"

    asyncio.run(go())


def asking(**more: object) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a call whose result asks the person, and its mirror headers."""
    body = message("tools/call", {"name": "read_diary", "arguments": {}, **more})
    meta = body["params"]["_meta"]
    meta["io.modelcontextprotocol/clientCapabilities"] = {"elicitation": {"form": {}}}
    return body, headers(body)


@pytest.mark.attack("state-of-another")
@pytest.mark.usefixtures("direct_clients")
def test_a_state_of_the_official_server_is_its_callers(whole: RunningEnvironment) -> None:
    """Behind Envoy the SDK's server knows its caller again, and refuses another's requestState."""

    async def go() -> None:
        async with whole.network.browser() as http:
            scenario = await begin_scenario(whole, http)
            await scenario.call("notes", "demo", whole.environment.who.john, "whoami")
            await scenario.call("notes", "password-only", whole.environment.who.bob, "whoami")
            john, bob = (scenario.tokens[f"{each} notes"] for each in ("demo", "password-only"))

            async def post(token: str, **more: object) -> dict[str, Any]:
                body, mirrors = asking(**more)
                sent = mirrors | {"authorization": f"Bearer {token}"}
                answer = await http.post(f"{scenario.gateway}/notes", json=body, headers=sent)
                lines = [line[6:] for line in answer.text.splitlines() if line[:6] == "data: "]
                found: dict[str, Any] = json.loads(lines[-1] if lines else answer.text)
                return found

            asked = (await post(john))["result"]
            (name,) = asked["inputRequests"]
            answer = {"action": "accept", "content": {"really": True}}
            more = {"inputResponses": {name: answer}, "requestState": asked["requestState"]}

            assert "error" in await post(bob, **more)
            told = (await post(john, **more))["result"]
            assert told["content"][0]["text"] == "Dear diary."

    asyncio.run(go())


@pytest.mark.attack("sdk-1x")
@pytest.mark.usefixtures("direct_clients")
def test_the_official_client_of_the_1x_line_calls_a_tool(whole: RunningEnvironment) -> None:
    """An older SDK, with sessions and without mirror headers, is served as well."""
    assert MCP1.exists(), "make setup makes the environment of SDK 1.x"

    async def token_of(client_id: str) -> str:
        async with whole.network.browser() as http:
            scenario = await begin_scenario(whole, http)
            await scenario.call(
                "files", client_id, whole.environment.who.john, "whoami", mode="legacy"
            )
            return scenario.tokens[f"{client_id} files"]

    def run(server: str, token: str) -> dict[str, Any]:
        place = whole.environment.place
        arguments = [
            f"{place.gateway}/{server}",
            str(place.port),
            str(whole.environment.certificates.authority),
        ]
        command = [str(MCP1), str(ROOT / "tests/e2e/mcp1_client.py"), *arguments, token, "whoami"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    token = asyncio.run(token_of("demo"))
    found = run("files", token)
    assert found["told"]["x-authz-client"] == "demo", found
    assert found["told"]["authorization_arrived"] is False
    assert "failed" in run("files", "")
    assert "failed" in run("notes", token)


def kill_service(whole: RunningEnvironment) -> None:
    # The worker, or where that does not start here, `authz serve`.
    found = _those_of(f"{State(whole.state).socket('check')}")
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.attack("worker-killed")
@pytest.mark.usefixtures("direct_clients")
def test_a_killed_service_lets_nobody_in_and_comes_back(whole: RunningEnvironment) -> None:
    """While the service is gone Envoy answers 503 as JSON-RPC; it is started again by itself."""

    async def ask(scenario: Scenario, token: str) -> httpx.Response:
        body = message("tools/call", {"name": "whoami", "arguments": {}})
        return await scenario.post("notes", body, headers(body, token), quiet=True)

    async def go() -> None:
        async with whole.network.browser() as http:
            scenario = await begin_scenario(whole, http)
            await scenario.call("notes", "demo", whole.environment.who.john, "whoami")
            token = scenario.tokens["demo notes"]
            await asyncio.to_thread(kill_service, whole)
            seen: set[int] = set()
            end = time.monotonic() + 300
            while time.monotonic() < end:
                answer = await ask(scenario, token)
                seen.add(answer.status_code)
                if answer.status_code == 200:
                    if 503 in seen:
                        break
                    # It was there again before anybody asked.
                    await asyncio.to_thread(kill_service, whole)
                if answer.status_code == 503:
                    assert answer.json()["error"]["code"] is not None
                await asyncio.sleep(0.02)
            # 401 while the keys are not loaded yet would throw a good log-in away.
            assert seen <= {200, 503, 429}, seen
            assert {200, 503} <= seen

    asyncio.run(go())
    until(lambda: any("starting it again" in line for line in whole.lines), "the restart")


@pytest.mark.attack("loopback-isolation")
def test_only_gateway_and_metrics_listen_on_the_network(whole: RunningEnvironment) -> None:
    """Valkey, Check, Envoy's admin and the MCP servers have no port to be reached at."""
    place = whole.environment.place
    found = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    pids = _those_of(str(place.folder))
    ports = {
        int(line.split()[3].rpartition(":")[2])
        for line in found.splitlines()
        if any(f"pid={pid}," in line for pid in pids)
    }

    # The issuer of the scene is no part of ours: it listens on a port of its own.
    assert ports == {place.port, place.metrics, place.issuer_port}


def _those_of(place: str) -> set[int]:
    """Return the processes that were told a path, by their arguments or (workers) environment."""
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {int(entry.name) for entry in processes if _was_told(entry, place.encode())}


def _was_told(entry: Path, place: bytes) -> bool:
    try:
        return any(place in (entry / part).read_bytes() for part in ("cmdline", "environ"))
    except OSError:
        return False


@pytest.mark.usefixtures("direct_clients")
def test_metrics_tell_of_the_walk(whole: RunningEnvironment) -> None:
    """What was decided can be read by Prometheus on the metrics listener; where a busy machine
    has made Redis late twice in a row, it counts again without anybody's request.
    """
    url = f"http://127.0.0.1:{whole.environment.place.metrics}/metrics"

    def metrics() -> str:
        return httpx.get(url, trust_env=False, timeout=30).text

    assert 'authz_decisions_total{reason="allowed",server="notes"}' in metrics()
    until(lambda: 'authz_limiter_mode{mode="redis"} 1.0' in metrics(), "Redis to count")
