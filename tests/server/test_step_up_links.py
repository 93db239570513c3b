"""The check and the step-ups that it offers: sealed, told, logged as what they are."""

import asyncio
import io
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authz.core.ledger import StepUpMissing, Taken, UnavailableError
from authz.core.policy import DeclaredClient, Rule, StepUpFallback
from authz.core.principal import Principal
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.deadline import Deadline
from authz.ledger.keys import RedisKeys
from authz.server.capabilities import Capabilities
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.step_up_links import ApprovalLinks, StepUpLinks, StepUpOffers
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.sealing import NotSealedError, Sealer
from authz.tokens.tickets import LIFETIME, open_ticket
from tests.server.test_capabilities import Redis
from tests.server.test_check import TAKEN, Answers, FakeVerifier
from tests.support.values import (
    NOW,
    call,
    front_door,
    login_record,
    policy,
    request,
    rpc,
    server,
    visitor,
)
from tests.support.wire import WireAnswer, answer, check_request, reason_of, refusal_of

META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
}
MODERN = {
    "mcp_protocol_version": "2026-07-28",
    "mcp_method": "tools/call",
    "mcp_name": "delete_note",
}
CLIENT = {"name": "x", "version": "1"}

GATEWAY = "https://mcp.example.test"


class StepUpLinksWorld:
    """A check with a front door, and a ledger that misses a step-up."""

    def __init__(
        self, ledger: object = StepUpMissing(), mode: StepUpFallback = StepUpFallback.LINK
    ) -> None:
        self.now = NOW
        self.redis = Redis()
        self.stream = io.StringIO()
        self.who: Principal = visitor(login_record(client="claude", amr=frozenset({"pwd", "kba"})))
        self.sealer = Sealer(["s" * 32], lambda: self.now)
        self.ledger = Answers(ledger)
        rule = Rule(second_factor=SecondFactor(Method.TOTP, 300))
        self.policy = policy(
            server(tools={"*": Rule(), "delete_*": rule}),
            DeclaredClient("claude"),
            front_door=front_door(step_up=mode),
        )
        self.mode = mode

    def ask(self, *sent: Any) -> list[WireAnswer]:
        """Ask one after the other, in one process."""

        async def run() -> list[WireAnswer]:
            capabilities = Capabilities(self.redis, RedisKeys("test"))
            links = StepUpLinks(self.sealer, GATEWAY)
            requests = ApprovalRequests(self.redis, RedisKeys("test"))
            approvals = ApprovalLinks(self.sealer, GATEWAY, requests)
            check = Check(
                Snapshot(
                    self.policy,
                    FakeVerifier(lambda _: self.who),
                    self.ledger,
                    Deadline(5.0),
                    StepUpOffers(links, capabilities, self.mode, approvals),
                ),
                Recorder(Metrics(), EventLog("json", self.stream, clock=lambda: 0.0)),
                RefusalLimiter(),
                clock=lambda: NOW,
            )
            found = [answer(await check(check_request(each))) for each in sent]
            await asyncio.sleep(0)
            await capabilities.aclose()
            return found

        return asyncio.run(run())

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def modern(**more: object) -> Any:
    body = rpc("tools/call", name="delete_note", arguments={}, _meta=META, **more)
    return request(body, **MODERN)  # type: ignore[arg-type]  # headers by keyword


def legacy() -> Any:
    return request(call("delete_note"), mcp_protocol_version="2025-11-25")


def initialize(**capabilities: object) -> Any:
    return request(
        rpc(
            "initialize",
            protocolVersion="2025-11-25",
            capabilities=capabilities,
            clientInfo=CLIENT,
        )
    )


def ticket_of(url: str) -> str:
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == (
        "https://mcp.example.test/authz/step-up"
    )
    (ticket,) = parse_qs(parts.query, strict_parsing=True)["ticket"]
    return ticket


def body_of(found: WireAnswer) -> Any:
    assert not found.allowed
    return json.loads(found.body)


def test_a_modern_client_is_asked_once_and_then_told_in_words() -> None:
    """The link; a retry before the step-up is done gets a tool's result that still has it."""
    world = StepUpLinksWorld()
    first, retry = world.ask(
        modern(), modern(inputResponses={"authz/step-up": {"action": "accept"}})
    )

    question = body_of(first)["result"]["inputRequests"]["authz/step-up"]
    assert first.status == 200
    ticket = open_ticket(world.sealer, ticket_of(question["params"]["url"]))
    assert (ticket.grant, ticket.client, ticket.tool) == ("grant-1", "claude", "delete_note")
    assert ticket.subject == world.who.subject
    assert (retry.status, body_of(retry)["result"]["isError"]) == (200, True)
    assert body_of(retry)["result"]["resultType"] == "complete"
    again = open_ticket(world.sealer, ticket_of(refusal_of(retry.body)["step_up_url"]))
    assert again == ticket


def test_a_request_that_goes_on_from_the_upstreams_state_keeps_it() -> None:
    """A result of ours would make the client forget the upstream's `requestState`."""
    (found,) = StepUpLinksWorld().ask(modern(requestState="of the upstream"))

    assert refusal_of(found.body)["step_up_url"]
    assert "of the upstream" not in found.body.decode()


def test_a_session_that_declared_links_gets_the_error_for_them() -> None:
    """2025-11-25: what an admitted `initialize` declared holds for its person and grant."""
    world = StepUpLinksWorld()
    world.ledger._answer = TAKEN
    (began,) = world.ask(initialize(elicitation={"url": {}}))
    world.ledger._answer = StepUpMissing()
    (found,) = world.ask(legacy())

    assert began.allowed
    assert found.status == 200
    (elicitation,) = body_of(found)["error"]["data"]["elicitations"]
    assert open_ticket(world.sealer, ticket_of(elicitation["url"])).tool == "delete_note"

    world.who = visitor(login_record(grant="another", amr=frozenset({"pwd"})))
    (other,) = world.ask(legacy())
    assert refusal_of(other.body)["step_up_url"]


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}])
def test_a_session_that_declared_none_is_told_in_words(capabilities: dict[str, Any]) -> None:
    """An empty `elicitation` means forms only."""
    world = StepUpLinksWorld()
    world.ledger._answer = TAKEN
    world.ask(initialize(**capabilities))
    world.ledger._answer = StepUpMissing()

    (found,) = world.ask(legacy())
    assert refusal_of(found.body)["step_up_url"]


def test_a_refused_initialize_declares_nothing() -> None:
    """Only who was let in is remembered."""
    world = StepUpLinksWorld(UnavailableError("redis"))
    world.ask(initialize(elicitation={"url": {}}))

    assert world.redis.sent == []


def test_where_redis_cannot_say_it_is_words() -> None:
    """A Redis that is away turns no refusal into anything else."""
    world = StepUpLinksWorld()
    world.redis.away = True

    (found,) = world.ask(legacy())
    assert refusal_of(found.body)["step_up_url"]


def test_the_operator_may_want_a_challenge() -> None:
    """For clients that show no links; those that do are still asked, and told in words."""
    world = StepUpLinksWorld(mode=StepUpFallback.CHALLENGE)
    asked, retry, plain = world.ask(
        modern(), modern(inputResponses={}), request(call("delete_note"))
    )

    assert [asked.status, retry.status, plain.status] == [200, 200, 401]
    assert "inputRequests" in body_of(asked)["result"]
    assert body_of(retry)["result"]["isError"]
    assert 'error="insufficient_user_authentication"' in plain.headers["www-authenticate"]
    assert 'max_age="300"' in plain.headers["www-authenticate"]


def test_switched_off_it_is_told_as_a_refusal_only() -> None:
    """No link is made, and the sentence stays."""
    (found,) = StepUpLinksWorld(mode=StepUpFallback.OFF).ask(modern())

    assert found.status == 200
    assert "step_up_url" not in refusal_of(found.body)


@pytest.mark.attack("denial-with-status-200")
def test_what_is_answered_with_200_is_logged_and_counted_as_refused() -> None:
    """The reason is in the line, the link is not."""
    world = StepUpLinksWorld()
    world.ask(modern())
    (line,) = world.lines()

    assert (line["verdict"], line["reason"]) == ("deny", "second_factor_required")
    assert "ticket" not in world.stream.getvalue()


def test_with_redis_away_there_is_no_link() -> None:
    """Where the step-up cannot be looked up nobody is sent to make another one."""
    (found,) = StepUpLinksWorld(UnavailableError("redis", "step-ups cannot be read")).ask(modern())

    assert (found.status, found.headers["retry-after"]) == (200, "5")
    assert reason_of(found) == "ledger_unavailable"
    assert "step-up?" not in found.body.decode()


@pytest.mark.attack("step-up-link-altered")
def test_a_link_ends_and_cannot_be_altered() -> None:
    """What is not sealed by us, for this, in these ten minutes, opens nothing."""
    world = StepUpLinksWorld()
    (found,) = world.ask(request(call("delete_note")))
    ticket = ticket_of(refusal_of(found.body)["step_up_url"])

    open_ticket(world.sealer, ticket)
    for text in (ticket[:-2] + "AA", ticket.replace(".", "", 1), ""):
        with pytest.raises(NotSealedError):
            open_ticket(world.sealer, text)
    with pytest.raises(NotSealedError):
        open_ticket(Sealer(["x" * 32], lambda: NOW), ticket)
    world.now += LIFETIME
    with pytest.raises(NotSealedError):
        open_ticket(world.sealer, ticket)


def test_a_request_that_is_allowed_makes_no_link() -> None:
    """Nothing is sealed, and nothing is asked, where nothing is refused."""
    world = StepUpLinksWorld(Taken((), TAKEN.mode))
    (found,) = world.ask(legacy())

    assert found.allowed
    assert world.redis.sent == []
