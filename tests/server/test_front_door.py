"""The front door's tokens at an assembled check: a real Valkey, a real issuer, real signatures."""

import asyncio
import io
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from authz.config.load import Settings, read
from authz.config.problems import ConfigError
from authz.config.secret_files import Secrets
from authz.core.ledger import StepUpKey
from authz.core.principal import LoginRecord, Person
from authz.core.second_factor import Method
from authz.ledger.keys import RedisKeys, grant_field
from authz.ledger.login_records import LoginRecords
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.server.assemble import Assembly
from authz.server.check import Check
from authz.server.explain import explain
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.sample import http_request
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.sealing import Sealer, sealing_secrets
from authz.tokens.tickets import open_ticket
from tests.support.patient_redis import patient_redis
from tests.support.service import KeyIssuer, running_issuer, running_service, until
from tests.support.transports import installed
from tests.support.valkey import ValkeyServer, valkey
from tests.support.values import call, request, rpc
from tests.support.wire import WireAnswer, answer, check_request, reason_of, refusal_of
from tests.tokens.token_factory import CLAIMS, FILES, rsa_signer

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, deadline: 30s}}
gateway: {{url: https://mcp.example.test}}
front_door: {{key_file: /run/secrets/key{more}}}
redis: {{url: '{redis}', max_away: 5m}}
clients:
  claude: {{redirect_uris: [https://claude.ai/cb]}}
  old: {{login: direct}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    tools:
      "*": {{}}
      delete_*: {{second_factor: {{method: totp, max_login_age: 5m}}}}
"""
KEY = "a private key, as far as sealing looks at it"
JOHN = Person("https://auth.example.test", str(CLAIMS["sub"]))


@pytest.fixture
def redis() -> Iterator[ValkeyServer]:
    with valkey() as one:
        yield one


@pytest.fixture
def issuer() -> Iterator[KeyIssuer]:
    with running_issuer() as one:
        yield one


def settings_of(issuer: str, redis: str, more: str = "") -> Settings:
    text = CONFIG.format(issuer=issuer, redis=redis, more=more)
    found = read(text, "authz.yaml", {}, secrets=False)
    return replace(found, secrets=Secrets(front_door=SecretStr(KEY)))


def token(client_id: str = "authz-two-factor", **changes: object) -> str:
    now = int(time.time())
    claims = {
        "aud": [FILES],
        "iat": now - 5,
        "nbf": now - 5,
        "exp": now + 600,
        "jti": os.urandom(4).hex(),
    }
    return rsa_signer().token({**claims, "client_id": client_id, **changes})


def record(**changes: object) -> LoginRecord:
    values: dict[str, object] = {
        "client": "claude",
        "client_id": "claude",
        "grant": "grant-1",
        "subject": CLAIMS["sub"],
        "amr": frozenset({"pwd", "kba", "otp", "mfa"}),
        "auth_time": int(time.time()) - 30,
        "account": "john",
    }
    return LoginRecord(**(values | changes))  # type: ignore[arg-type]  # keyword values of the record


class FrontDoorWorld:
    """A check as `authz serve` assembles it, and the other end of its Redis."""

    def __init__(self, settings: Settings, redis: ValkeyServer) -> None:
        self.stream = io.StringIO()
        self.recorder = Recorder(Metrics(), EventLog("json", self.stream))
        self.assembly = Assembly(settings, {}, self.recorder)
        self.check = Check(self.assembly.snapshot, self.recorder, RefusalLimiter())
        self.ledger = RedisLedger(RedisOptions(redis.url, timeout=20))
        self.log_ins = LoginRecords(self.ledger.command, RedisKeys("authz"))
        self.redis = redis

    async def ask(self, bearer: str, tool: str | None = None) -> WireAnswer:
        body = rpc() if tool is None else call(tool)
        sent = request(body, authorization=f"Bearer {bearer}")
        return answer(await self.check(check_request(sent)))

    async def reason(self, bearer: str, tool: str | None = None) -> str:
        found = await self.ask(bearer, tool)
        return "allowed" if found.allowed else reason_of(found)


def play(
    scene: Callable[[FrontDoorWorld], Awaitable[None]],
    issuer: KeyIssuer,
    redis: ValkeyServer,
    more: str = "",
) -> FrontDoorWorld:
    async def run() -> FrontDoorWorld:
        world = FrontDoorWorld(settings_of(issuer.address, redis.url, more), redis)
        world.assembly.start()
        try:
            await world.assembly.settle(20)
            async with asyncio.timeout(60):
                while (await world.assembly.problems())["redis"] == "Redis has not answered yet":  # noqa: ASYNC110 - it comes by a task of its own
                    await asyncio.sleep(0.01)
            await scene(world)
        finally:
            await world.assembly.aclose()
            await world.ledger.aclose()
        return world

    with patient_redis():
        return asyncio.run(run())


@pytest.mark.attack("front-door-token-without-record")
def test_a_token_passes_with_its_record_and_not_without(
    issuer: KeyIssuer, redis: ValkeyServer
) -> None:
    """401 before it is written, admitted from then on; other clients by their entry alone."""

    async def scene(world: FrontDoorWorld) -> None:
        ours = token()
        assert await world.reason(ours) == "log_in_unknown"
        await world.log_ins.put(ours, record(), 600)
        found = await world.ask(ours)
        assert found.allowed
        assert found.headers["x-authz-client"] == "claude"

        assert await world.reason(token("old")) == "allowed"
        assert await world.reason(token("claude")) == "foreign_client"
        assert await world.reason(token("somebody")) == "foreign_client"
        assert await world.reason(token("default")) == "foreign_client"
        assert (await world.ask(token("somebody"))).status == 401

    play(scene, issuer, redis)


@pytest.mark.attack("record-of-another-token")
def test_a_record_is_worth_nothing_to_another_token_or_person(
    issuer: KeyIssuer, redis: ValkeyServer
) -> None:
    """Not even under the right name in Redis."""

    async def scene(world: FrontDoorWorld) -> None:
        mine, other, bobs = token(), token(), token(sub="bob")
        await world.log_ins.put(mine, record(), 600)
        await world.log_ins.put(bobs, record(), 600)

        assert await world.reason(mine) == "allowed"
        assert await world.reason(other) == "log_in_unknown"
        assert await world.reason(bobs) == "log_in_unknown"

    play(scene, issuer, redis)


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[]", b"\xff", b'{"client":"claude"}', b"null", b'"x"']
)
@pytest.mark.attack("front-door-token-without-record")
def test_a_record_that_cannot_be_read_is_none(
    issuer: KeyIssuer, redis: ValkeyServer, value: bytes
) -> None:
    """What is not of our writing lets nobody in."""

    async def scene(world: FrontDoorWorld) -> None:
        ours = token()
        await world.log_ins.put(ours, record(), 600)
        (key,) = redis.command("KEYS", "*log-in*")
        redis.command("SET", key, value)
        assert await world.reason(ours) == "log_in_unknown"

    play(scene, issuer, redis)


def test_while_redis_is_away_known_tokens_go_on_and_others_wait(
    issuer: KeyIssuer, redis: ValkeyServer
) -> None:
    """A cached log-in serves; an unknown token is 503, which throws no log-in away."""

    async def scene(world: FrontDoorWorld) -> None:
        known, unknown = token(), token()
        for each in (known, unknown):
            await world.log_ins.put(each, record(), 600)
        assert await world.reason(known) == "allowed"

        redis.kill()
        assert await world.reason(known) == "allowed"
        for _ in range(70):  # more than bad tokens of an address may
            found = await world.ask(unknown)
            assert found.status == 503
        assert reason_of(found) == "ledger_unavailable"
        assert found.headers["retry-after"]
        assert await world.reason(known, "delete_x") == "allowed"

    play(scene, issuer, redis)


@pytest.mark.attack("step-up-of-another-grant")
def test_a_step_up_counts_for_its_grant_until_that_is_revoked(
    issuer: KeyIssuer, redis: ValkeyServer
) -> None:
    """Another program of the same person is asked for its own; a revoked grant has none."""

    async def scene(world: FrontDoorWorld) -> None:
        # The factor was there, too long ago.
        old = {"auth_time": int(time.time()) - 3000}
        one, two = token(), token()
        await world.log_ins.put(one, record(**old), 600)
        await world.log_ins.put(two, record(grant="grant-2", **old), 600)
        for each in (one, two):
            assert await world.reason(each, "delete_x") == "login_too_old"

        key = StepUpKey(JOHN, "grant-1", "files")
        await world.ledger.record_step_up(key, Method.TOTP, int(time.time()) - 20, 300)
        assert await world.reason(one, "delete_x") == "allowed"
        assert await world.reason(two, "delete_x") == "login_too_old"

        field = grant_field(JOHN.issuer, "grant-1")
        await world.ledger.revoke(field, Revocation())
        assert await world.reason(one, "delete_x") == "token_revoked"
        assert await world.reason(one) == "token_revoked"
        assert await world.reason(two) == "allowed"
        # What is lifted as `authz revocations lift` does it: old tokens and step-ups stay void.
        await world.ledger.revoke(field, Revocation(int(time.time()) - 15))
        later = token()
        await world.log_ins.put(later, record(**old), 600)
        assert await world.reason(later, "delete_x") == "login_too_old"

    play(scene, issuer, redis)


def test_a_refusal_offers_a_link_that_the_pages_can_open(
    issuer: KeyIssuer, redis: ValkeyServer
) -> None:
    """Sealed with the key that both processes make of the same secret."""
    links: list[str] = []

    async def scene(world: FrontDoorWorld) -> None:
        ours = token()
        await world.log_ins.put(ours, record(amr=frozenset({"pwd", "kba"})), 600)
        found = await world.ask(ours, "delete_x")
        assert found.status == 200
        links.append(refusal_of(found.body)["step_up_url"])

    play(scene, issuer, redis)
    (ticket,) = parse_qs(urlsplit(links[0]).query)["ticket"]
    opened = open_ticket(Sealer(sealing_secrets(None, KEY), time.time), ticket)
    assert (opened.grant, opened.tool, opened.account) == ("grant-1", "delete_x", "john")


def test_a_reload_keeps_what_did_not_change(issuer: KeyIssuer, redis: ValkeyServer) -> None:
    """Keys, log-ins and declarations stay; other client ids or another Redis renew them."""

    async def scene(world: FrontDoorWorld) -> None:
        def reloaded(more: str = "", url: str = redis.url) -> Assembly:
            found = settings_of(issuer.address, url, more)
            return Assembly(found, {}, world.recorder, world.assembly)

        same = reloaded(", registration: false")
        assert same.identity is world.assembly.identity
        assert same.offers is world.assembly.offers
        assert same.snapshot.policy != world.assembly.snapshot.policy

        renamed = reloaded(", one_factor: other")
        assert renamed.identity is not world.assembly.identity
        assert renamed.offers is world.assembly.offers
        assert renamed.counting is world.assembly.counting
        await renamed.aclose(keep=world.assembly)

        moved = reloaded(url=redis.url + "/1")
        assert moved.identity is not world.assembly.identity
        assert moved.offers is not world.assembly.offers
        await moved.aclose(keep=world.assembly)

        told = reloaded(", step_up: challenge")
        assert told.identity is world.assembly.identity
        assert told.offers is not world.assembly.offers
        await told.aclose(keep=world.assembly)

        assert reloaded(", step_up: 'off'").offers is None

    play(scene, issuer, redis)


def test_a_front_door_without_redis_does_not_start() -> None:
    """Log-ins are kept in Redis, and the problem says so."""
    found = settings_of("http://127.0.0.1:9", "redis://127.0.0.1:9")
    config = found.config.model_copy(
        update={"redis": found.config.redis.model_copy(update={"url": None})}
    )
    recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))

    with pytest.raises(ConfigError) as errors:
        Assembly(replace(found, config=config), {}, recorder)
    assert "front door keeps log-ins and step-ups in Redis" in str(errors.value.problems[0])


@pytest.mark.parametrize("sealing", ["", "short\n"])
def test_a_front_door_without_a_key_to_seal_with_does_not_start(sealing: str) -> None:
    """A link that anybody could make would be none."""
    found = settings_of("http://127.0.0.1:9", "redis://127.0.0.1:9")
    secrets = Secrets(front_door=SecretStr(KEY), sealing=SecretStr(sealing))
    recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))

    for each in (secrets, Secrets()):
        with pytest.raises(ConfigError):
            Assembly(replace(found, secrets=each), {}, recorder)


def test_explain_tells_the_log_in(issuer: KeyIssuer, redis: ValkeyServer) -> None:
    """Its record, what it proves, and what is missing, by the functions that serve."""
    ours, gone = token(), token()

    async def scene(world: FrontDoorWorld) -> None:
        await world.log_ins.put(ours, record(amr=frozenset({"pwd", "kba"})), 600)
        settings = settings_of(issuer.address, redis.url)
        server = settings.policy.servers["files"]

        sent = http_request(server, "tools/call", "delete_x", ours)
        found = await explain(settings, sent, {})
        steps = {step.name: step for step in found.steps}
        assert steps["token.log_in"].words == "the front door has its log-in on record"
        assert steps["log_in"].words == (
            'at the front door: client_id "claude", grant "grant-1", amr "kba", "pwd"'
        )
        assert steps["client"].words == '"claude", named under clients'
        assert steps["second_factor"].notes[0].startswith("login proves nothing (")
        assert steps["step_up"].reason is not None

        sent = http_request(server, "tools/list", None, gone)
        found = await explain(settings, sent, {})
        assert found.steps[-1].name == "token.log_in"
        assert found.steps[-1].words == "no record of a log-in"

    play(scene, issuer, redis)


@pytest.mark.parametrize("transport", ["grpcio", "ngh2"])
def test_the_service_knows_log_ins_and_offers_step_ups(
    issuer: KeyIssuer, redis: ValkeyServer, tmp_path: Path, transport: str
) -> None:
    """As a process, on both transports: its key from a file, its log-ins from Redis."""
    installed(transport)
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    file = tmp_path / "key.pem"
    file.touch(0o600)
    file.write_bytes(key)
    text = CONFIG.format(issuer=issuer.address, redis=redis.url, more="")
    text = text.replace("/run/secrets/key", str(file))
    text += f"service: {{transport: {transport}, drain_notice: 0s}}\ntelemetry: {{log: json}}\n"
    with running_service(tmp_path, text, {"PATH": os.environ["PATH"]}) as service:
        service.wait_ready()
        ours = token()

        def ask(tool: str) -> WireAnswer:
            return service.check(check_request(request(call(tool), authorization=f"Bearer {ours}")))

        # Redis has 50 ms: of a busy machine's, an answer may come too late to count.
        until(lambda: reason_of(ask("read_x")) == "log_in_unknown", "no record")
        asyncio.run(_write(redis, ours, record(amr=frozenset({"pwd", "kba"}))))
        until(lambda: ask("read_x").allowed, "the record")
        links = list[str]()

        def offered() -> bool:
            links[:] = [refusal_of(ask("delete_x").body).get("step_up_url", "")]
            return bool(links[0])

        until(offered, "a step-up")
        (link,) = links

        sealer = Sealer(sealing_secrets(None, key.decode()), time.time)
        (ticket,) = parse_qs(urlsplit(link).query)["ticket"]
        assert open_ticket(sealer, ticket).tool == "delete_x"
        assert "ticket" not in json.dumps(service.lines)


async def _write(redis: ValkeyServer, bearer: str, login: LoginRecord) -> None:
    ledger = RedisLedger(RedisOptions(redis.url, timeout=20))
    await LoginRecords(ledger.command, RedisKeys("authz")).put(bearer, login, 600)
    await ledger.aclose()
