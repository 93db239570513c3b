"""The service as a process: real gRPC, a real Valkey, an issuer that can be taken away."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from authz.envoy import codec, list_codec
from authz.envoy.pb import health_pb2
from tests.support.service import (
    PATIENCE,
    KeyIssuer,
    ServiceProcess,
    running_issuer,
    running_service,
    until,
)
from tests.support.transports import installed
from tests.support.valkey import ValkeyServer, valkey
from tests.support.values import request as sent
from tests.support.values import rpc
from tests.support.wire import WireAnswer, answer, check_request
from tests.tokens.token_factory import ec_signer, rsa_signer

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, deadline: 30s, max_lifetime: 30d,
         keys: {{refresh: 10s, cooldown: 1s}}}}
gateway: {{url: https://mcp.example.test, refusals: http_status}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
service: {{transport: {transport}, drain_notice: 0s}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    limits: [{{per: user, rate: {rate}}}]
"""
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture(params=["ngh2", "pyvoy", "grpcio"], scope="module")
def transport(request: pytest.FixtureRequest) -> str:
    """What holds of a process holds on each; what some tests share is one for each."""
    return installed(request.param)


@pytest.fixture(scope="module")
def shared_issuer() -> Iterator[KeyIssuer]:
    with running_issuer() as one:
        yield one


@pytest.fixture(scope="module")
def redis() -> Iterator[ValkeyServer]:
    with valkey() as one:
        yield one


@pytest.fixture(scope="module")
def shared(
    shared_issuer: KeyIssuer,
    redis: ValkeyServer,
    tmp_path_factory: pytest.TempPathFactory,
    transport: str,
) -> Iterator[ServiceProcess]:
    """A service that its tests leave as they found it, but for what it has counted."""
    config = CONFIG.format(
        issuer=shared_issuer.address, redis=redis.url, transport=transport, rate="60/minute"
    )
    with running_service(tmp_path_factory.mktemp("s"), config, ENV) as one:
        one.wait_ready()
        yield one


@pytest.fixture
def service(
    issuer: KeyIssuer, redis: ValkeyServer, tmp_path: Path, transport: str
) -> Iterator[ServiceProcess]:
    """A service of the test's own, which may end it."""
    config = CONFIG.format(
        issuer=issuer.address, redis=redis.url, transport=transport, rate="60/minute"
    )
    with running_service(tmp_path, config, ENV) as one:
        yield one


def now_token(**claims: object) -> str:
    now = int(time.time())
    return rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 600, **claims})


def asking(token: str | None = None) -> bytes:
    return check_request(sent(rpc(), authorization=f"Bearer {token or now_token()}"))


def count(service: ServiceProcess, name: str) -> float:
    """Return a metric, the sum of all whose name begins so; 0 where it was never counted."""
    lines = service.get("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def serving(service: ServiceProcess) -> bool:
    call = service.channel.unary_unary(
        f"/{codec.HEALTH}/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    status: int = call(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status
    return status == health_pb2.HealthCheckResponse.SERVING


def test_a_token_of_the_issuer_is_allowed_over_real_grpc(shared: ServiceProcess) -> None:
    """Keys come from the issuer's metadata, the count from Valkey, the answer over HTTP/2."""
    found = shared.check(asking())

    assert found.allowed, found.body
    assert found.headers["x-authz-client"] == "mcp-2fa"
    assert serving(shared)


def test_without_lists_to_filter_nobody_sends_any(shared: ServiceProcess) -> None:
    """Whoever reaches the listener finds no `Process` (Envoy's ext_proc) there."""
    path = f"/{list_codec.PROCESSOR}/Process"
    process: grpc.StreamStreamMultiCallable[bytes, bytes] = shared.channel.stream_stream(path)
    with pytest.raises(grpc.RpcError) as caught:
        next(process(iter([b""]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_each_decision_is_counted_and_logged(shared: ServiceProcess) -> None:
    """Metrics and the log tell of what was decided, on a listener of their own."""
    decisions = [
        f'authz_decisions_total{{reason="{reason}",server="files"}}'
        for reason in ("allowed", "token_invalid")
    ]
    before = [count(shared, each) for each in decisions]
    lines = count(shared, "authz_decisions_total{")
    until(lambda: len(shared.events("decision")) == lines, "the lines of before")
    shared.check(asking())
    shared.check(asking("a.b.c"))

    assert [count(shared, each) for each in decisions] == [each + 1 for each in before]
    until(lambda: count(shared, 'authz_limiter_mode{mode="redis"}') == 1, "Redis to count")
    until(lambda: len(shared.events("decision")) == lines + 2, "two lines")
    assert [line["verdict"] for line in shared.events("decision")[-2:]] == ["allow", "deny"]


@pytest.mark.attack("issuer-late")
def test_without_keys_the_service_is_not_ready_and_lets_nobody_in(
    issuer: KeyIssuer, redis: ValkeyServer, tmp_path: Path, transport: str
) -> None:
    """An issuer that is away at start is waited for; tokens get a 503 until its keys are there."""
    issuer.broken = True
    config = CONFIG.format(
        issuer=issuer.address, redis=redis.url, transport=transport, rate="60/minute"
    )
    with running_service(tmp_path, config, ENV) as service:
        assert service.get("/readyz")[0] == 503
        assert not serving(service)
        assert service.check(asking()).status == 503

        issuer.broken = False

        service.wait_ready()
        assert service.check(asking()).allowed


@pytest.mark.attack("redis-late")
def test_a_redis_that_comes_late_is_waited_for(
    issuer: KeyIssuer, tmp_path: Path, transport: str
) -> None:
    """The service starts, is not ready, and becomes ready when Redis answers."""
    with valkey(start=False) as redis:
        config = CONFIG.format(
            issuer=issuer.address, redis=redis.url, transport=transport, rate="60/minute"
        )
        with running_service(tmp_path, config, ENV) as service:
            until(lambda: '"keys": ""' in service.get("/readyz")[1], "the keys")
            assert "Redis has not answered yet" in service.get("/readyz")[1]
            assert "ledger_unavailable" in service.check(asking()).body.decode()

            redis.start()

            service.wait_ready()
            assert service.check(asking()).allowed


@pytest.mark.attack("redis-away")
def test_a_redis_that_dies_costs_no_request(service: ServiceProcess, redis: ValkeyServer) -> None:
    """In the mode `local` limits are counted here while Redis is away, then there again."""
    service.wait_ready()
    token = now_token()
    assert service.check(asking(token)).allowed

    redis.kill()
    away = service.check(asking(token))
    assert away.allowed, away.body
    local = 'authz_limiter_mode{mode="local"} 1.0'
    until(lambda: local in service.get("/metrics")[1], "local limits")
    until(lambda: "Redis is away (" in service.get("/readyz")[1], "a note")

    redis.start()
    until(
        lambda: (
            service.check(asking(token)).allowed
            and 'authz_limiter_mode{mode="redis"} 1.0' in service.get("/metrics")[1]
        ),
        "Redis to count again",
    )


@pytest.mark.attack("redis-may-evict")
def test_a_redis_that_may_evict_is_said_to_be_a_problem(
    issuer: KeyIssuer, tmp_path: Path, transport: str
) -> None:
    """Readiness names the eviction policy: revocations and step-ups must not be forgotten."""
    with valkey(maxmemory="64mb", maxmemory_policy="allkeys-lru") as redis:
        config = CONFIG.format(
            issuer=issuer.address, redis=redis.url, transport=transport, rate="60/minute"
        )
        with running_service(tmp_path, config, ENV) as service:
            until(lambda: "noeviction" in service.get("/readyz")[1], "the eviction policy")
            assert service.get("/readyz")[0] == 503


@pytest.mark.attack("issuer-black-holed")
def test_known_tokens_do_not_wait_for_an_issuer_that_hangs(
    issuer: KeyIssuer, redis: ValkeyServer, tmp_path: Path, transport: str
) -> None:
    """While the issuer hangs, a known token is allowed and an unknown key gets its 503."""
    config = CONFIG.format(
        issuer=issuer.address, redis=redis.url, transport=transport, rate="60/minute"
    )
    with running_service(tmp_path, config, ENV) as service:
        service.wait_ready()
        token = now_token()
        assert service.check(asking(token)).allowed
        issuer.hold.clear()

        unknown = service.begin(asking(ec_signer("new-kid").token({"iat": int(time.time())})))
        assert service.check(asking(token)).allowed
        assert not unknown.done()
        issuer.hold.set()
        assert answer(unknown.result()).status in {401, 503}


def test_a_limit_is_counted_and_told(shared: ServiceProcess) -> None:
    """The request over the limit is refused with a Retry-After and is charged to nobody."""
    answers = list[WireAnswer]()

    def counted_in_redis() -> bool:
        """Use a limit up; where Redis is late, a request is counted in another place."""
        before = len(shared.lines)
        token = now_token(sub=f"somebody busy, {before}")
        answers[:] = [shared.check(asking(token)) for _ in range(61)]
        until(lambda: len(shared.events("decision", before)) >= 61, "the log")
        allowed = [line for line in shared.events("decision", before) if "limiter" in line]
        return {line["limiter"] for line in allowed} == {"redis"}

    if not counted_in_redis():
        assert shared.redis_was_late()
        until(counted_in_redis, "61 answers of Redis in time")

    assert [each.allowed for each in answers] == [*[True] * 60, False]
    assert "rate_limited" in answers[60].body.decode()
    assert 1 <= int(answers[60].headers["retry-after"]) <= 66


# --- reload -----------------------------------------------------------------------------------


def test_a_reload_takes_effect_as_a_whole(shared: ServiceProcess, shared_issuer: KeyIssuer) -> None:
    """SIGHUP reads the file again: new servers are known, old ones gone, keys are kept."""
    text, reloads = shared.config.read_text(), len(shared.events("reloaded"))
    assert shared.check(asking()).allowed
    asked = len(shared_issuer.asked)
    shared.config.write_text(text.replace("  files:", "  notes:"))

    shared.signal(signal.SIGHUP)
    shared.wait_for("reloaded", reloads + 1)

    assert shared.check(asking()).status == 404
    assert len(shared_issuer.asked) == asked
    assert shared.get("/readyz")[0] == 200
    shared.config.write_text(text)
    shared.signal(signal.SIGHUP)
    shared.wait_for("reloaded", reloads + 2)
    assert shared.check(asking()).allowed


def test_a_replaced_file_is_taken_by_itself_and_no_request_is_lost(shared: ServiceProcess) -> None:
    """As editors write it (a new file under the old name), without a signal, while calls come."""
    text, reloads = shared.config.read_text(), len(shared.events("reloaded"))
    token = now_token(sub="a-person-of-many-calls")  # others keep their limits

    def replace(new: str) -> list[bool]:
        nonlocal reloads
        path = shared.config.with_name("new.yaml")
        path.write_text(new)
        path.replace(shared.config)
        reloads += 1
        answers = []
        while len(shared.events("reloaded")) < reloads:
            answers.append(shared.check(asking(token)).status == 404)
        return [*answers, shared.check(asking(token)).status == 404]

    refused = replace(text.replace("  files:", "  notes:"))
    told = shared.events("reloaded")[-1]["config"]
    assert refused == sorted(refused)
    assert refused[-1]
    assert json.loads(shared.get("/readyz")[1])["config"] == told
    assert count(shared, f'authz_config_info{{config="{told}"}}') == 1

    allowed = replace(text)
    assert allowed == sorted(allowed, reverse=True)
    assert not allowed[-1]


@pytest.mark.attack("broken-configuration")
def test_a_broken_configuration_changes_nothing(shared: ServiceProcess) -> None:
    """A file with an error is told with its line and field, and the old rules stay."""
    refusals = 'authz_config_reloads_total{outcome="refused"}'
    lines, counted = len(shared.lines), count(shared, refusals)
    text = shared.config.read_text()
    shared.config.write_text(text.replace("60/minute", "60/minit"))

    shared.signal(signal.SIGHUP)
    refused = shared.wait_for("reload_refused", after=lines)

    shared.config.write_text(text)
    assert "servers.files.limits[0].rate" in str(refused["problems"])
    assert shared.check(asking()).allowed
    assert count(shared, refusals) == counted + 1


def test_a_new_password_of_redis_costs_no_decision(
    issuer: KeyIssuer, tmp_path: Path, transport: str
) -> None:
    """Redis knows both meanwhile: every check is answered with its limits counted in Redis. One
    that Redis refuses is told, and the old one stays in use.
    """
    password = tmp_path / "password"
    password.write_text("old\n")
    with valkey() as redis:
        redis.command("ACL", "SETUSER", "svc", "on", ">old", "~*", "&*", "+@all")
        config = CONFIG.format(
            issuer=issuer.address, redis=redis.url, transport=transport, rate="1000000/minute"
        ).replace("redis: {", f"redis: {{username: svc, password_file: {password}, ")
        # A reload waits as long for a Redis that refuses the password.
        config = config.replace("deadline: 30s", "deadline: 2s")
        with running_service(tmp_path, config, ENV) as service:
            service.wait_ready()
            token = now_token()
            answers = [service.check(asking(token))]
            password.write_text("wrong\n")
            service.signal(signal.SIGHUP)
            refused = service.wait_for("reload_refused")
            assert "redis: it does not answer with these settings" in str(refused["problems"])
            answers.append(service.check(asking(token)))

            redis.command("ACL", "SETUSER", "svc", ">new")
            password.write_text("new\n")
            service.signal(signal.SIGHUP)
            while not service.events("reloaded"):
                answers.append(service.check(asking(token)))
            redis.command("ACL", "SETUSER", "svc", "<old")
            answers += [service.check(asking(token)) for _ in range(50)]
            assert all(each.allowed for each in answers)
            until(lambda: len(service.events("decision")) >= len(answers), "the log")
            counted = {str(line["limiter"]) for line in service.events("decision")}
            assert counted == {"redis"} or service.redis_was_late(), counted

            def only_the_new_one_is_in_use() -> bool:
                """Close all connections: those made from now on know no other, once the parts of
                before the reload have ended, a deadline after it.
                """
                redis.command("ACL", "LOG", "RESET")
                redis.command("CLIENT", "KILL", "USER", "svc")
                until(lambda: service.check(asking(token)).allowed, "a check after that")
                until(
                    lambda: 'authz_limiter_mode{mode="redis"} 1.0' in service.get("/metrics")[1],
                    "Redis to count",
                )
                return bool(redis.command("ACL", "LOG") == [])

            until(only_the_new_one_is_in_use, "no part to come with the old password")


# --- drain ------------------------------------------------------------------------------------


@pytest.mark.attack("sigterm-under-load")
def test_what_is_in_flight_at_sigterm_is_answered(
    service: ServiceProcess, issuer: KeyIssuer
) -> None:
    """A check that waits for the issuer when SIGTERM comes gets its answer before the end, and
    watchers of the health service are told NOT_SERVING before the end of the connection.
    """
    service.wait_ready()
    watch = service.channel.unary_stream(
        f"/{codec.HEALTH}/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    issuer.hold.clear()
    signers = [ec_signer(f"new-kid-{number}") for number in range(5)]
    issuer.keys += [each.jwk() for each in signers]
    waiting = [service.begin(asking(each.token({"iat": int(time.time())}))) for each in signers]
    until(lambda: "authz_checks_in_flight 5.0" in service.get("/metrics")[1], "five in flight")

    service.signal(signal.SIGTERM)
    service.wait_for("draining")
    issuer.hold.set()

    for call in waiting:
        assert call.result()
    seen: list[int] = []
    with suppress(grpc.RpcError):  # how the stream ends is not the matter
        seen.extend(each.status for each in watch)
    assert seen[:1] == [health_pb2.HealthCheckResponse.NOT_SERVING]
    assert service.process.wait(PATIENCE) == 0
    assert (service.config.parent / "stderr").read_text() == ""
