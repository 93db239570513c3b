"""A call that waits for an approval: refused with a link, kept in a real Redis, passed once."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from secrets import token_hex
from urllib.parse import parse_qs, urlsplit

import pytest

from authz.core.approval import Approval
from authz.core.conditions import Condition, Within
from authz.core.json_pointer import parse
from authz.core.ledger import UnavailableError
from authz.core.policy import DeclaredClient, OperationRule, Rule, StepUpFallback
from authz.core.principal import Principal
from authz.core.second_factor import Evidence, Method, SecondFactor
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.deadline import Deadline
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.server.capabilities import Capabilities
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.step_up_links import ApprovalLinks, StepUpLinks, StepUpOffers
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.approval_requests import open_name, open_request
from authz.tokens.sealing import Sealer
from tests.ledger.queries import connected
from tests.server.test_check import FakeVerifier
from tests.support.valkey import ValkeyServer, valkey
from tests.support.values import (
    NOW,
    front_door,
    login_record,
    policy,
    principal,
    request,
    rpc,
    server,
    visitor,
)
from tests.support.wire import WireAnswer, answer, check_request, reason_of, refusal_of

GATEWAY = "https://mcp.example.test"
RULES = {
    "*": Rule(),
    "delete_*": Rule(approval=Approval()),
    "send_*": Rule(approval=Approval(600)),
    "wipe_*": Rule(
        approval=Approval(),
        second_factor=SecondFactor(Method.TOTP, 300, frozenset({Evidence.STEP_UP})),
    ),
}
SMALL = (Condition(parse("/amount"), Within(most=100)),)
LARGE = (Condition(parse("/amount"), Within(above=100)),)
TOOLS = (
    *server(tools=RULES).tools,
    OperationRule("pay", Rule(approval=Approval(600), when=SMALL)),
    OperationRule(
        "pay", Rule(approval=Approval(600), when=LARGE, second_factor=SecondFactor(Method.TOTP))
    ),
    OperationRule("buy", Rule(approval=Approval(600), when=SMALL)),
    OperationRule("buy", Rule(approval=Approval(3600), when=LARGE)),
)


@pytest.fixture(scope="module")
def redis() -> Iterator[ValkeyServer]:
    with valkey() as found:
        yield found


class ApprovalScene:
    """A check over a real Redis, and who asks."""

    def __init__(self, ledger: RedisLedger, mode: StepUpFallback) -> None:
        self.ledger = ledger
        self.stream = io.StringIO()
        self.sealer = Sealer(["s" * 32], lambda: NOW)
        self.requests = ApprovalRequests(ledger.command, ledger._keys)
        self.who: Principal = visitor(login_record(client="claude", amr=frozenset({"pwd", "kba"})))
        capabilities = Capabilities(ledger.command, ledger._keys)
        offers = StepUpOffers(
            StepUpLinks(self.sealer, GATEWAY),
            capabilities,
            mode,
            ApprovalLinks(self.sealer, GATEWAY, self.requests),
        )
        rules = policy(
            replace(server(tools=RULES, machines=frozenset({"m"})), tools=TOOLS),
            DeclaredClient("claude"),
            DeclaredClient("m", machine=True, direct=True),
            front_door=front_door(step_up=mode),
        )
        self.check = Check(
            Snapshot(rules, FakeVerifier(lambda _: self.who), ledger, Deadline(5.0), offers),
            Recorder(Metrics(), EventLog("json", self.stream, clock=lambda: 0.0)),
            RefusalLimiter(),
            clock=lambda: NOW,
        )

    async def call(self, tool: str, **arguments: object) -> WireAnswer:
        """Call a tool."""
        body = rpc("tools/call", name=tool, arguments=arguments)
        return answer(await self.check(check_request(request(body))))

    async def decide(self, told: WireAnswer, *, approved: bool = True) -> None:
        """Let the person follow the link of a refusal and decide."""
        link = str(refusal_of(told.body)["approval_url"])
        ticket = parse_qs(urlsplit(link).query)["ticket"][0]
        kept = await self.requests.find(open_name(self.sealer, ticket))
        assert kept is not None
        seconds, _ = await self.ledger.command("TIME")
        key = open_request(self.sealer, kept.sealed).key
        assert await self.requests.decide(
            key, kept.id, int(seconds), lifetime=300, approved=approved
        )


def played(
    redis: ValkeyServer,
    scenario: Callable[[ApprovalScene], Awaitable[None]],
    mode: StepUpFallback = StepUpFallback.LINK,
) -> None:
    """Run a scenario on an empty deployment."""

    async def run() -> None:
        options = RedisOptions(redis.url, deployment=f"t{token_hex(8)}", timeout=20)
        async with connected(options) as ledger:
            await scenario(ApprovalScene(ledger, mode))

    asyncio.run(run())


@pytest.mark.attack("approval-swapped")
def test_an_approved_call_passes_once_and_no_other(redis: ValkeyServer) -> None:
    """Other arguments, another tool and a second time are refused with a link of their own."""

    async def scenario(scene: ApprovalScene) -> None:
        told = await scene.call("delete_note", name="a")
        assert reason_of(told) == "approval_required"
        await scene.decide(told)
        for tool, name in (("delete_note", "b"), ("delete_all", "a")):
            assert reason_of(await scene.call(tool, name=name)) == "approval_required"
        assert (await scene.call("delete_note", name="a")).allowed
        assert reason_of(await scene.call("delete_note", name="a")) == "approval_required"
        lines = [json.loads(line) for line in scene.stream.getvalue().splitlines()]
        assert [each.get("approval") for each in lines if each["verdict"] == "allow"] == [
            "each_call"
        ]

    played(redis, scenario)


def test_a_tool_is_approved_for_a_time(redis: ValkeyServer) -> None:
    """Whatever the arguments; another tool of the same rule is another one."""

    async def scenario(scene: ApprovalScene) -> None:
        await scene.decide(await scene.call("send_mail", to="a"))
        for to in ("a", "b"):
            assert (await scene.call("send_mail", to=to)).allowed
        assert reason_of(await scene.call("send_money", to="a")) == "approval_required"

    played(redis, scenario)


@pytest.mark.attack("approval-of-another")
@pytest.mark.parametrize("tool", ["pay", "buy"])
def test_a_small_call_approves_no_large_one(redis: ValkeyServer, tool: str) -> None:
    """Where rules ask for more of some arguments, what was approved for others is not enough."""

    async def scenario(scene: ApprovalScene) -> None:
        scene.who = visitor(login_record(client="claude"))  # with TOTP
        await scene.decide(await scene.call(tool, amount=50))
        assert (await scene.call(tool, amount=100)).allowed
        large = await scene.call(tool, amount=5000)
        assert reason_of(large) == "approval_required"
        await scene.decide(large)
        assert (await scene.call(tool, amount=5000)).allowed

    played(redis, scenario)


def test_a_declined_call_is_told_so_without_a_link(redis: ValkeyServer) -> None:
    """The client hears the person's word, and has nothing to send the person to."""

    async def scenario(scene: ApprovalScene) -> None:
        await scene.decide(await scene.call("delete_note"), approved=False)
        told = await scene.call("delete_note")
        assert reason_of(told) == "approval_declined"
        assert b"/authz/approval" not in told.body

    played(redis, scenario)


def test_what_a_step_up_lacks_too_is_asked_on_one_page(redis: ValkeyServer) -> None:
    """The link of a missing second factor leads to the approval, which records both."""

    async def scenario(scene: ApprovalScene) -> None:
        told = await scene.call("wipe_disk")
        assert reason_of(told) == "second_factor_required"
        said = refusal_of(told.body)
        assert "step_up_url" not in said
        ticket = parse_qs(urlsplit(said["approval_url"]).query)["ticket"][0]
        kept = await scene.requests.find(open_name(scene.sealer, ticket))
        assert kept is not None
        asked = open_request(scene.sealer, kept.sealed)
        assert asked.steps_up
        assert asked.ticket.need.method is Method.TOTP

    played(redis, scenario)


@pytest.mark.attack("approval-too-large")
@pytest.mark.parametrize("value", ["x" * 17_000, 2**53 + 1])
def test_what_cannot_be_shown_is_refused_without_a_link(redis: ValkeyServer, value: object) -> None:
    """It is told why, and nothing is kept."""

    async def scenario(scene: ApprovalScene) -> None:
        told = await scene.call("delete_note", name=value)
        assert reason_of(told) == "approval_impossible"
        assert b"/authz/" not in told.body
        tag = scene.ledger._keys.record("approval-request", "").decode().replace(":a", ":*a", 1)
        assert not await scene.ledger.command("KEYS", f"{tag}*")

    played(redis, scenario)


@pytest.mark.attack("approval-machine")
def test_a_machine_is_refused(redis: ValkeyServer) -> None:
    """Nobody approves for it."""

    async def scenario(scene: ApprovalScene) -> None:
        scene.who = principal(subject=None, client_id="m")
        assert reason_of(await scene.call("delete_note")) == "machine_not_allowed"
        assert (await scene.call("read_note")).allowed

    played(redis, scenario)


@pytest.mark.parametrize(
    ("mode", "linked"), [(StepUpFallback.CHALLENGE, True), (StepUpFallback.OFF, False)]
)
def test_no_challenge_asks_for_an_approval(
    redis: ValkeyServer, mode: StepUpFallback, linked: bool
) -> None:
    """A client that logs in again approves nothing: it is told in words; off means no link."""

    async def scenario(scene: ApprovalScene) -> None:
        told = await scene.call("delete_note")
        assert reason_of(told) == "approval_required"
        assert told.status == 200
        assert "www-authenticate" not in told.headers
        assert ("approval_url" in refusal_of(told.body)) is linked

    played(redis, scenario, mode)


@pytest.mark.attack("approval-without-redis")
def test_what_could_not_be_kept_is_no_link(
    redis: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis fails between the two the fault is told, and logged; nobody is sent to a page."""

    async def scenario(scene: ApprovalScene) -> None:
        async def away(*_: object) -> None:
            raise UnavailableError("redis", "away")

        monkeypatch.setattr(scene.requests, "_command", away)
        told = await scene.call("delete_note")
        assert reason_of(told) == "ledger_unavailable"
        assert b"/authz/" not in told.body
        assert '"reason":"ledger_unavailable"' in scene.stream.getvalue()

    played(redis, scenario)


@pytest.mark.attack("approval-logged")
def test_no_argument_is_logged(redis: ValkeyServer) -> None:
    """Neither of a refused call nor of one that passed."""

    async def scenario(scene: ApprovalScene) -> None:
        await scene.decide(await scene.call("delete_note", name="a-secret"))
        assert (await scene.call("delete_note", name="a-secret")).allowed
        assert "a-secret" not in scene.stream.getvalue()

    played(redis, scenario)
