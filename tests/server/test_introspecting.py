"""Introspection in the service: from authz.yaml over the check to a real connection and back."""

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from authz.config.load import load
from authz.server.assemble import Assembly
from authz.server.check import Check
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.support.introspection import ASK, IntrospectionSite, named, site
from tests.support.values import request, rpc
from tests.support.wire import WireAnswer, answer, check_request, reason_of
from tests.tokens.opaque import TOKEN, junk, said
from tests.tokens.test_client_auth import pem
from tests.tokens.test_issuer import HTML, Play, Writer, document
from tests.tokens.token_factory import ec_signer, rsa_signer

CONFIG = """\
issuer:
  url: https://auth.example.test
  internal: {internal}
  deadline: {deadline}
  introspection: {{client_id: authz, key_file: {key}}}
gateway: {{url: https://mcp.example.test}}
servers:
  files: {{upstream: 'http://127.0.0.1:9/mcp', limits: []{rule}}}
"""
PATIENCE = 60.0


class IntrospectingWorker:
    """One worker of the service without its transport."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "authz.yaml"
        self.stream = io.StringIO()
        self.recorder = Recorder(Metrics(), EventLog("json", self.stream))
        self.assembly = Assembly(load(self.path, {}), {}, self.recorder)
        self.check = Check(self.assembly.snapshot, self.recorder, RefusalLimiter())

    async def reload(self) -> None:
        old, self.assembly = (
            self.assembly,
            Assembly(load(self.path, {}), {}, self.recorder, self.assembly),
        )
        self.check.snapshot = self.assembly.snapshot
        await old.aclose(keep=self.assembly)

    async def ask(self, token: str = TOKEN, address: str = "192.0.2.7") -> WireAnswer:
        sent = request(rpc(), authorization=f"Bearer {token}", address=address)
        return answer(await self.check(check_request(sent)))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.recorder.metrics.registry.get_sample_value(name, labels)

    def lines(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


Scene = Callable[[IntrospectingWorker, IntrospectionSite], Awaitable[None]]


def times() -> dict[str, object]:
    now = int(time.time())
    return {"iat": now - 60, "exp": now + 600}


def live(**changes: object) -> bytes:
    """Return a good answer for the real clock."""
    return document(**said(**{**times(), **changes}))


def signed() -> str:
    """Return a good signed token for the real clock, of the client `mcp-opaque`."""
    return rsa_signer().token({**times(), "nbf": times()["iat"], "client_id": "mcp-opaque"})


def play(
    folder: Path, page: bytes | Play, scene: Scene, *, rule: str = "", deadline: str = "5s"
) -> None:
    """Run a worker against an issuer, and a scene with both."""
    key = folder / "key.pem"
    key.write_text(pem(ec_signer().key))
    key.chmod(0o600)

    async def run() -> None:
        async with site(page, named()) as served:
            served.pages["/jwks.json"] = document(keys=[rsa_signer().jwk()])
            text = CONFIG.format(internal=served.url, deadline=deadline, key=key, rule=rule)
            (folder / "authz.yaml").write_text(text)
            worker = IntrospectingWorker(folder)
            try:
                async with asyncio.timeout(PATIENCE):
                    await scene(worker, served)
            finally:
                await worker.assembly.aclose()

    asyncio.run(run())


async def _hold(_: Writer) -> None:
    await asyncio.sleep(3600)


def test_an_opaque_token_is_let_in(tmp_path: Path) -> None:
    """The issuer is asked with our proof, and its word becomes identity headers."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        found = await worker.ask()
        assert found.allowed, found.body
        assert found.headers["x-authz-client"] == "mcp-opaque"
        assert (await worker.ask()).allowed
        assert served.paths.count(f"POST {ASK}") == 1
        assert worker.sample("authz_introspections_total", outcome="active") == 1
        assert worker.sample("authz_introspection_duration_seconds_count") == 1
        assert worker.sample("authz_token_cache_total", outcome="hit") == 1

    play(tmp_path, live(), scene)


@pytest.mark.attack("introspection-coalesced")
def test_a_thousand_checks_with_one_new_token_are_one_question(tmp_path: Path) -> None:
    """Whatever waits for a token waits for one answer; each is decided by itself."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        answers = await asyncio.gather(*(worker.ask() for _ in range(1000)))
        assert all(each.allowed for each in answers)
        assert served.paths.count(f"POST {ASK}") == 1
        assert worker.sample("authz_decisions_total", server="files", reason="allowed") == 1000

    play(tmp_path, live(), scene)


@pytest.mark.attack("introspection-flood")
def test_junk_from_everywhere_keeps_no_known_token_waiting(tmp_path: Path) -> None:
    """Junk from a thousand addresses at once: known tokens pass, and the issuer lives."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        assert (await worker.ask()).allowed
        served.page = _hold
        flood = [
            asyncio.create_task(worker.ask(junk(), f"198.51.{n // 250}.{n % 250}"))
            for n in range(1000)
        ]
        await asyncio.sleep(0)
        for _ in range(50):
            assert (await worker.ask()).allowed
        await asyncio.gather(*flood)
        assert served.paths.count(f"POST {ASK}") <= 1 + 8

    play(tmp_path, live(), scene, deadline="1s")


@pytest.mark.attack("introspection-late")
def test_known_tokens_of_both_kinds_do_not_wait_for_an_issuer_that_hangs(tmp_path: Path) -> None:
    """While a stranger's token waits for an issuer that hangs, what is known is allowed."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        token = signed()
        assert (await worker.ask(token)).allowed
        assert (await worker.ask()).allowed
        served.page = _hold
        unknown = asyncio.create_task(worker.ask(junk()))
        await asyncio.sleep(0)
        for _ in range(20):
            assert (await worker.ask(token)).allowed
            assert (await worker.ask()).allowed
        assert not unknown.done()
        unknown.cancel()

    play(tmp_path, live(), scene, deadline="30s")


@pytest.mark.attack("introspection-late")
def test_who_waits_in_vain_is_told_to_come_back(tmp_path: Path) -> None:
    """At the deadline the answer is a 503 with Retry-After, and a fault in the log."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        found = await worker.ask()
        assert (found.status, reason_of(found)) == (503, "issuer_unavailable")
        assert "retry-after" in found.headers
        assert worker.lines("fault") != []

    play(tmp_path, _hold, scene, deadline="100ms")


WRONG = "active is neither true nor false"


def test_what_is_wrong_with_the_issuer_is_written_down_once(tmp_path: Path) -> None:
    """A fault is counted every time and told when it begins and when it ends."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        for _ in range(3):
            assert (await worker.ask(junk())).status == 503
        (line,) = worker.lines("introspection")
        assert (line["fault"], line["detail"]) == ("malformed", WRONG)
        outcomes = [
            worker.sample("authz_introspections_total", outcome=name) or 0
            for name in ("malformed", "turned_away")
        ]
        assert outcomes[0] >= 1
        assert sum(outcomes) == 3

    play(tmp_path, document(), scene)


@pytest.mark.attack("token-kind")
def test_where_opaque_tokens_are_not_taken_nobody_is_asked(tmp_path: Path) -> None:
    """A server of signed tokens refuses an opaque one with words, and asks nothing."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        assert reason_of(await worker.ask()) == "token_opaque"
        assert (await worker.ask(signed())).allowed
        assert f"POST {ASK}" not in served.paths

    play(tmp_path, live(), scene, rule=", tokens: [jwt]")


@pytest.mark.attack("introspection-revoked")
def test_where_tokens_are_always_introspected_a_revoked_one_is_refused(tmp_path: Path) -> None:
    """A signed token is good until the issuer says that it is not."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        token = signed()
        assert (await worker.ask(token)).allowed
        assert (await worker.ask(token)).allowed
        assert served.paths.count(f"POST {ASK}") == 1

        served.page = document(active=False)
        other = rsa_signer().token({**times(), "nbf": times()["iat"], "jti": "another"})
        assert reason_of(await worker.ask(other)) == "token_revoked"

    play(tmp_path, live(), scene, rule=", introspect: always")


@pytest.mark.attack("introspection-hostile")
def test_no_token_and_no_credential_is_logged(tmp_path: Path) -> None:
    """Whatever the issuer answers, no line holds a token, an assertion or the issuer's words."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        for page in (live(), document(active="SECRET"), b"HTTP/1.1 401 SECRET\r\n\r\n"):
            served.page = page
            token = junk()
            await worker.ask(token)
            assert token not in worker.stream.getvalue()
        assert all("client_assertion" in form for _, form in served.forms)
        for _, form in served.forms:
            assert form["client_assertion"][0] not in worker.stream.getvalue()
        assert "SECRET" not in worker.stream.getvalue()

    play(tmp_path, HTML, scene)


def test_a_reload_keeps_what_is_known_and_takes_a_new_key(tmp_path: Path) -> None:
    """Without a change nothing is asked again; with another key the issuer is asked with it."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        assert (await worker.ask()).allowed
        await worker.reload()
        assert (await worker.ask()).allowed
        assert served.paths.count(f"POST {ASK}") == 1

        (tmp_path / "key.pem").write_text(pem(rsa_signer().key))
        await worker.reload()
        assert (await worker.ask()).allowed
        assert served.paths.count(f"POST {ASK}") == 2
        algorithms = [form["client_assertion"][0].split(".")[0] for _, form in served.forms]
        assert len(set(algorithms)) == 2

    play(tmp_path, live(), scene)


@pytest.mark.attack("limits-multiplied-by-groups")
def test_a_claim_that_limits_begin_to_count_is_read_of_known_tokens(tmp_path: Path) -> None:
    """Principals that were read without it are not kept over the reload: they would lack it."""

    async def scene(worker: IntrospectingWorker, served: IntrospectionSite) -> None:
        del served
        assert (await worker.ask()).allowed
        before = worker.assembly.identity
        text = worker.path.read_text()
        worker.path.write_text(text.replace("limits: []", "limits: [{per: user, rate: 9/minute}]"))
        await worker.reload()
        assert worker.assembly.identity is before
        counted = "limits: [{per: {claim: tenant}, rate: 9/minute}]"
        worker.path.write_text(text.replace("limits: []", counted))
        await worker.reload()
        assert worker.assembly.identity is not before

    play(tmp_path, live(), scene)
