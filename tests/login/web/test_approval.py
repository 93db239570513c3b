"""Approvals against the stand-in issuer and a real Redis: who may see, and what counts."""

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from authz.core.approval import Approval
from authz.core.exact_call import ExactCall
from authz.core.ledger import (
    ApprovalDeclined,
    ApprovalMissing,
    LedgerAnswer,
    Query,
    StepUpKey,
    Taken,
    UnavailableError,
)
from authz.core.principal import Client, Person
from authz.core.second_factor import Method, StepUpNeed
from authz.core.step_up import ApprovalRequest
from authz.ledger.approval_requests import MOST_LISTED, ApprovalRequests
from authz.ledger.keys import RedisKeys, approval_name
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.protocol.values import ClientIdentity
from authz.login.web.own_proofs import PersonsProofs
from authz.login.web.sessions import OwnGrant, OwnProof, ProofKind
from authz.login.web.step_up import NO_CODE, ONLY_PASSWORD, TOO_OLD
from authz.tokens.approval_requests import open_request, seal_name, seal_request
from authz.tokens.sealing import NotSealedError
from tests.demo.kit import BOB, ISSUER, JOHN, DemoWorld
from tests.login.front import onward
from tests.login.web.pages_kit import (
    APPROVAL,
    FROM_OUR_PAGE,
    ORIGIN,
    TICKET,
    FakeGateway,
    forms,
    gateway,
    words,
)
from tests.support.valkey import ValkeyServer, valkey

NONE = StepUpNeed(Method.NONE, None)
TOTP = StepUpNeed(Method.TOTP, 300)
ARGUMENTS = {"path": "/tmp/notes", "force": True}


@pytest.fixture(scope="module")
def redis() -> Iterator[ValkeyServer]:
    with valkey() as server:
        yield server


def exact(arguments: object = ARGUMENTS, **params: object) -> ExactCall:
    """Return a call as the check makes it."""
    members = {
        "params": {"name": "delete_note", "arguments": arguments, **params},
        "version": "2026-07-28",
    }
    return ExactCall(json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def asked(
    call: ExactCall | None = None,
    *,
    lifetime: int | None = None,
    steps_up: bool = False,
    **ticket: Any,
) -> ApprovalRequest:
    """Return what John is asked; of a call without a second factor unless it is said."""
    found = replace(TICKET, **{"need": NONE, **ticket})
    exactly = (call or exact()) if lifetime is None else None
    return ApprovalRequest(found, Approval(lifetime), exactly, steps_up)


@dataclass
class ApprovalWorld:
    """The pages, a Redis, and what a client asks there."""

    gateway: FakeGateway
    ledger: RedisLedger
    requests: ApprovalRequests
    lines: list[tuple[str, ...]] = field(default_factory=list)

    def link(self, request: ApprovalRequest) -> str:
        """Let the check refuse a call; return its link."""
        at = int(self.gateway.world.clock())
        request = replace(request, ticket=replace(request.ticket, at=at))
        sealed = seal_request(self.gateway.sealer, request)
        name = self.gateway.run(self.requests.keep(request.key, sealed))
        return f"{APPROVAL}?{urlencode({'ticket': seal_name(self.gateway.sealer, name)})}"

    def opened(
        self, browser: httpx.AsyncClient, request: ApprovalRequest, **knows: Any
    ) -> httpx.Response:
        """Follow the link and log in; return the page at the end."""
        callback = self.callback(browser, request, **knows)
        return self.end(browser, callback)

    def callback(self, browser: httpx.AsyncClient, request: ApprovalRequest, **knows: Any) -> str:
        """Follow the link and log in; return where Authelia sends the browser."""
        first = self.gateway.get(browser, self.link(request))
        assert first.status_code == 200, first.text
        return self.gateway.log_in(browser, onward(self.gateway.click(browser, first)), **knows)

    def end(self, browser: httpx.AsyncClient, callback: str) -> httpx.Response:
        """Open a callback; return the page at the end, whose address holds no code."""
        answer = self.gateway.get(browser, callback)
        if answer.has_redirect_location:
            answer = self.gateway.get(browser, answer.headers["location"])
            assert "code=" not in str(answer.url)
        return answer

    def take(self, request: ApprovalRequest) -> LedgerAnswer:
        """Make the call: what the ledger says."""
        key = request.key
        step_up = request.ticket.need if request.steps_up else None
        query = Query(
            token_id="t",
            person=key.person,
            client=Client(ISSUER, "claude"),
            issued_at=2**40,
            step_up_key=StepUpKey(key.person, key.grant, key.server) if step_up else None,
            step_up=step_up,
            takes=(),
            grant=key.grant,
            approval_key=key,
        )
        answer: LedgerAnswer = self.gateway.run(self.ledger.take(query))
        return answer


@pytest.fixture
def pages(world: DemoWorld, redis: ValkeyServer) -> Iterator[ApprovalWorld]:
    # The stand-in's clock is Redis': a decision is as old as it says.
    deployment = f"test-{uuid.uuid4().hex}"
    ledger = RedisLedger(RedisOptions(redis.url, deployment=deployment, timeout=20))
    seconds, _ = world.runner.run(ledger.command("TIME"))
    world.clock.at = float(seconds)
    requests = ApprovalRequests(ledger.command, RedisKeys(deployment))
    lines = list[tuple[str, ...]]()

    def log(step: str, outcome: str, **more: Any) -> None:
        lines.append((step, outcome, *(str(each) for each in more.values())))

    with gateway(world, requests, log) as found:
        yield ApprovalWorld(found, ledger, requests, lines)
    world.runner.run(ledger.aclose())


def decide(
    pages: ApprovalWorld, browser: httpx.AsyncClient, page: httpx.Response, decision: str
) -> httpx.Response:
    """Click on a decision."""
    return pages.gateway.click(browser, page, decision=decision)


def data(page: httpx.Response) -> list[str]:
    """Return what the framed parts of a page say."""
    found = re.findall(r'<pre class="data" dir="ltr">(.*?)</pre>', page.text, re.DOTALL)
    return [unescape(re.sub(r"</?(?:bdi|mark)[^>]*>", "", each)) for each in found]


def test_whole(pages: ApprovalWorld) -> None:
    """A log-in, the call as it is, a click: it passes once."""
    browser, request = pages.gateway.browser(), asked()
    page = pages.opened(browser, request)

    for said in ("claude.ai", "delete_note", "notes", "john", "UTC", "exactly this, once"):
        assert said in words(page)
    arguments, itself = data(page)
    assert json.loads(arguments) == ARGUMENTS
    assert json.loads(itself) == {"version": "2026-07-28"}
    assert pages.take(request) == ApprovalMissing()
    done = decide(pages, browser, page, "approve")
    assert "let it try again" in words(done)
    assert "5 minutes" in words(done)
    assert isinstance(pages.take(request), Taken)
    assert pages.take(request) == ApprovalMissing()
    assert pages.lines == [("approval", "approved", "https://claude.ai", "notes", "grant-1")]


def test_declined(pages: ApprovalWorld) -> None:
    """The person says no, and the next call is told so."""
    browser, request = pages.gateway.browser(), asked()
    done = decide(pages, browser, pages.opened(browser, request), "decline")
    assert "Nothing was done" in words(done)
    assert pages.take(request) == ApprovalDeclined()
    assert pages.lines[-1][:2] == ("approval", "declined")


def test_for_a_time(pages: ApprovalWorld) -> None:
    """The page says that any arguments pass, and shows none."""
    browser, request = pages.gateway.browser(), asked(lifetime=600)
    page = pages.opened(browser, request)
    assert "whatever the application sends" in words(page)
    assert "10 minutes" in words(page)
    assert not data(page)
    decide(pages, browser, page, "approve")
    assert isinstance(pages.take(request), Taken)
    assert isinstance(pages.take(request), Taken)


def test_step_up_and_approval_in_one_visit(pages: ApprovalWorld) -> None:
    """Where a step-up is missing too the same log-in proves it; a decision for no does not."""
    browser, request = pages.gateway.browser(), asked(steps_up=True, need=TOTP)
    page = pages.opened(browser, request)
    assert "also counts for the second factor" in words(page)
    decide(pages, browser, page, "decline")
    step_up = pages.ledger._keys.step_up(StepUpKey(Person(ISSUER, JOHN), "grant-1", "notes"))
    assert pages.gateway.run(pages.ledger.command("GET", step_up)) is None

    again = replace(request, call=exact({"other": 1}))
    decide(pages, browser, pages.opened(browser, again), "approve")
    assert isinstance(pages.take(again), Taken)


def test_a_person_sees_and_ends_what_was_approved(pages: ApprovalWorld) -> None:
    """Approvals and the step-up are listed until they are used or ended, or their grant is."""
    gateway = pages.gateway
    call, tool = asked(steps_up=True, need=TOTP), asked(lifetime=600)
    of_bob = asked(subject=BOB)
    for request, name in ((call, "john"), (tool, "john"), (of_bob, "bob")):
        browser = gateway.browser()
        decide(pages, browser, pages.opened(browser, request, username=name), "approve")
    declined = replace(call, call=exact({"other": 1}))
    browser = gateway.browser()
    decide(pages, browser, pages.opened(browser, declined), "decline")
    proofs = PersonsProofs(
        pages.ledger, pages.requests, gateway.sealer, direct=(), servers=("notes",)
    )
    john = Person(ISSUER, JOHN)
    client = ClientIdentity(
        name="https://claude.ai", client_name="", redirect_uri="", ends_at="", document_host=""
    )
    grant = OwnGrant("grant-1", client, "notes", (), 0, 0)

    def live(person: Person, *grants: OwnGrant) -> list[OwnProof]:
        return list(gateway.run(proofs.of(person, grants)))

    assert live(john) == []
    assert live(Person(ISSUER, "nobody"), grant) == []
    found = live(john, grant)
    assert {each.id.kind for each in found} == set(ProofKind)
    assert len(found) == 3
    assert {(each.client, each.server) for each in found} == {("https://claude.ai", "notes")}
    by_kind = {each.id.kind: each for each in found}
    assert by_kind[ProofKind.CALL].tool == by_kind[ProofKind.TOOL].tool == "delete_note"
    assert by_kind[ProofKind.TOOL].until - by_kind[ProofKind.TOOL].since == 600

    # Whoever can write into Redis shows John nothing of Bob's.
    keys = pages.ledger._keys
    lists = [keys.approvals_of(each) for each in (john, Person(ISSUER, BOB))]
    (foreign,) = gateway.run(pages.ledger.command("HGETALL", lists[1])).items()
    gateway.run(pages.ledger.command("HSET", lists[0], *foreign))
    assert len(gateway.run(pages.requests.live(john))) == 3
    assert live(john, grant) == found

    # Nobody ends another's: a step-up is of the person who asks, whatever the id says.
    bob = Person(ISSUER, BOB)
    gateway.run(proofs.end(bob, by_kind[ProofKind.STEP_UP].id))
    assert len(live(john, grant)) == 3
    assert isinstance(pages.take(call), Taken), "used up"
    assert ProofKind.CALL not in {each.id.kind for each in live(john, grant)}
    for kind in (ProofKind.TOOL, ProofKind.STEP_UP):
        gateway.run(proofs.end(john, by_kind[kind].id))
    assert live(john, grant) == []
    assert pages.take(tool) == ApprovalMissing()


def test_the_list_of_approvals_is_bounded_and_reads_no_rubbish(pages: ApprovalWorld) -> None:
    """The last to end are kept; what another wrote into Redis, or cannot be opened, is left out."""
    key = pages.ledger._keys.approvals_of(Person(ISSUER, JOHN))
    for number in range(MOST_LISTED + 3):
        request = asked(exact({"n": number}))
        pages.link(request)
        kept = pages.gateway.run(pages.requests.find(approval_name(request.key)))
        assert kept is not None
        now = int(pages.gateway.world.clock())
        assert pages.gateway.run(
            pages.requests.decide(
                request.key, kept.id, now, lifetime=300 + number, approved=True, listed="text"
            )
        )
    person = Person(ISSUER, JOHN)
    live = pages.gateway.run(pages.requests.live(person))
    assert len(live) == MOST_LISTED
    assert live[0].name == approval_name(request.key)
    assert 0 < pages.gateway.run(pages.ledger.command("PTTL", key)) <= 1000 * (303 + MOST_LISTED)
    rubbish = ("rubbish", "1 x", "ab" * 16, "1 \x00", "cd" * 16, "x", "\xff", "")
    pages.gateway.run(pages.ledger.command("HSET", key, *rubbish))
    assert pages.gateway.run(pages.requests.live(person)) == live
    proofs = PersonsProofs(
        pages.ledger, pages.requests, pages.gateway.sealer, direct=("grant-1",), servers=("notes",)
    )
    assert list(pages.gateway.run(proofs.of(person, ()))) == []


@pytest.mark.attack("approval-raises-nothing")
def test_an_approval_is_no_step_up(pages: ApprovalWorld) -> None:
    """With a second factor asked of the person and none missing, none is recorded."""
    browser, request = pages.gateway.browser(), asked(need=TOTP)
    decide(pages, browser, pages.opened(browser, request), "approve")
    key = pages.ledger._keys.step_up(StepUpKey(Person(ISSUER, JOHN), "grant-1", "notes"))
    assert pages.gateway.run(pages.ledger.command("GET", key)) is None
    assert isinstance(pages.take(request), Taken)


@pytest.mark.attack("approval-other-person")
def test_another_person_sees_nothing(pages: ApprovalWorld) -> None:
    """Whoever else logs in is told so, and sees neither arguments nor whose call it is."""
    browser, request = pages.gateway.browser(), asked()
    page = pages.opened(browser, request, username="bob")
    assert page.status_code == 403
    assert "somebody else" in words(page)
    for secret in ("/tmp/notes", "john", "force"):
        assert secret not in page.text
    assert pages.take(request) == ApprovalMissing()
    assert pages.lines[-1][:2] == ("approval", "not_proved")
    own = asked(subject=BOB)
    decide(pages, browser, pages.opened(browser, own, username="bob"), "approve")
    assert pages.take(request) == ApprovalMissing()
    assert isinstance(pages.take(own), Taken)


@pytest.mark.attack("approval-link-tells")
def test_the_link_tells_no_arguments(pages: ApprovalWorld) -> None:
    """Before the log-in nothing that the application sends is on a page, in a link, in a log."""
    link = pages.link(asked())
    page = pages.gateway.get(pages.gateway.browser(), link)
    assert page.status_code == 200
    for text in (link, page.text, str(pages.lines), str(pages.gateway.notes)):
        assert "/tmp/notes" not in text
        assert "force" not in text
    for said in ("claude.ai", "delete_note", "notes", "john"):
        assert said in words(page)
    assert not pages.gateway.stand.transport.sent, "nothing happens before a click"


@pytest.mark.attack("approval-kept-readable")
def test_redis_keeps_arguments_sealed(pages: ApprovalWorld) -> None:
    """Whoever reads Redis reads no argument; what is kept opens as nothing else, and not later."""
    request = asked()
    pages.link(request)
    command = pages.ledger.command
    key = pages.ledger._keys.approval_request(approval_name(request.key))
    kept = pages.gateway.run(command("GET", key))
    assert b"tmp" not in kept
    sealed = kept.decode().split(" ")[2]
    found = open_request(pages.gateway.sealer, sealed)
    assert (found.key, found.call) == (request.key, request.call)
    with pytest.raises(NotSealedError):
        pages.gateway.sealer.open("approval-ticket", sealed, longest=10**6)
    pages.gateway.world.clock.at += 600
    with pytest.raises(NotSealedError):
        open_request(pages.gateway.sealer, sealed)


@pytest.mark.attack("approval-another-browser")
def test_another_browser(pages: ApprovalWorld) -> None:
    """A click in one browser and the log-in in another, or a page carried over: nothing counts."""
    thief, victim, request = pages.gateway.browser(), pages.gateway.browser(), asked()
    first = pages.gateway.get(thief, pages.link(request))
    callback = pages.gateway.log_in(victim, onward(pages.gateway.click(thief, first)))
    assert pages.end(victim, callback).status_code == 403
    page = pages.opened(victim, request)
    assert pages.gateway.get(thief, str(page.url)).status_code == 404
    assert decide(pages, thief, page, "approve").status_code == 403
    assert pages.take(request) == ApprovalMissing()


@pytest.mark.attack("approval-cross-site")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example.test"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_cross_site(pages: ApprovalWorld, headers: dict[str, str]) -> None:
    """A form that another site sends decides nothing, and begins no log-in."""
    browser, request = pages.gateway.browser(), asked()
    first = pages.gateway.get(browser, pages.link(request))
    assert pages.gateway.click(browser, first, headers).status_code == 403
    page = pages.opened(browser, request)
    assert pages.gateway.click(browser, page, headers, decision="approve").status_code == 403
    assert pages.take(request) == ApprovalMissing()


@pytest.mark.attack("approval-cross-site")
def test_pages_are_framed_by_nobody_and_load_nothing(pages: ApprovalWorld) -> None:
    """The headers are those of the other pages; the buttons wait for a moment."""
    browser = pages.gateway.browser()
    page = pages.opened(browser, asked())
    policy = page.headers["content-security-policy"]
    for part in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"):
        assert part in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert 'class="wait"' in page.text
    assert page.text.count("<script") == 1  # of the times, by its hash


@pytest.mark.attack("approval-replayed")
def test_a_decision_counts_once(pages: ApprovalWorld) -> None:
    """The same form again, another tab, the page of before: nothing more is approved."""
    browser, request = pages.gateway.browser(), asked()
    page = pages.opened(browser, request)
    other = pages.gateway.get(browser, str(page.url))
    assert decide(pages, browser, page, "approve").status_code == 200
    assert decide(pages, browser, page, "approve").status_code == 404
    assert decide(pages, browser, other, "decline").status_code == 404
    assert isinstance(pages.take(request), Taken)
    pages.link(request)  # the client asks for the same again
    assert decide(pages, browser, page, "approve").status_code == 404
    assert pages.gateway.get(browser, str(page.url)).status_code == 404
    assert pages.take(request) == ApprovalMissing()


@pytest.mark.attack("approval-swapped")
@pytest.mark.parametrize("decision", ["approve", "decline"])
@pytest.mark.parametrize("lifetime", [None, 600])
def test_what_is_asked_while_the_page_is_read_is_not_decided(
    pages: ApprovalWorld, lifetime: int | None, decision: str
) -> None:
    """A request that was exchanged under its name and id waits until it has been shown."""
    browser, request = pages.gateway.browser(), asked(lifetime=lifetime, need=TOTP)
    page = pages.opened(browser, request)
    other = replace(request, steps_up=True)  # which would record a step-up, too
    pages.link(other)
    answer = decide(pages, browser, page, decision)
    assert answer.status_code == 409
    assert "Something else is asked now" in words(answer)
    assert pages.take(request) == ApprovalMissing()
    assert not isinstance(pages.take(other), Taken)
    again = pages.gateway.get(browser, str(page.url))
    assert "also counts for the second factor" in words(again)
    decide(pages, browser, again, "approve")
    assert isinstance(pages.take(other), Taken)


@pytest.mark.attack("approval-swapped")
@pytest.mark.parametrize(
    "other",
    [
        asked(lifetime=86_400, need=TOTP),
        asked(lifetime=600, need=NONE),
        asked(lifetime=600, need=StepUpNeed(Method.TOTP, 30)),
        asked(need=TOTP),
    ],
)
def test_no_request_that_asks_otherwise_takes_the_place_of_one(
    pages: ApprovalWorld, other: ApprovalRequest
) -> None:
    """Of the same tool, for longer or with less of a log-in: it has a page of its own."""
    browser, request = pages.gateway.browser(), asked(lifetime=600, need=TOTP)
    page = pages.opened(browser, request)
    pages.link(other)
    assert decide(pages, browser, page, "approve").status_code == 200
    assert pages.take(other) == ApprovalMissing()
    assert isinstance(pages.take(request), Taken)


@pytest.mark.attack("approval-swapped")
def test_changed_arguments_need_a_new_approval(pages: ApprovalWorld) -> None:
    """What was shown is what passes."""
    browser, request = pages.gateway.browser(), asked()
    decide(pages, browser, pages.opened(browser, request), "approve")
    other = replace(request, call=exact({**ARGUMENTS, "path": "/"}))
    assert pages.take(other) == ApprovalMissing()
    assert isinstance(pages.take(request), Taken)


@pytest.mark.attack("approval-link-forged")
def test_only_our_links(pages: ApprovalWorld) -> None:
    """No link, a made-up one, one for something else, one of another issuer, an old one."""
    old = pages.link(asked())
    other = pages.link(asked(issuer="https://other.example.test"))
    step_up = pages.gateway.ticket()
    unknown = seal_name(pages.gateway.sealer, "0" * 32)
    forged = [f"{APPROVAL}?ticket={text}" for text in ("", "x", "a.b.c.d.e", step_up, unknown)]
    for link in (*forged, other):
        page = pages.gateway.get(pages.gateway.browser(), link)
        assert page.status_code == 404, link
        assert not forms(page)
    pages.gateway.world.clock.at += 600
    assert pages.gateway.get(pages.gateway.browser(), old).status_code == 404


@pytest.mark.attack("approval-second-factor")
@pytest.mark.parametrize(
    ("amr", "age", "missing"),
    [
        ({"pwd", "kba"}, 0, ONLY_PASSWORD),
        ({"pwd", "kba", "pop", "hwk", "mfa"}, 0, NO_CODE),
        ({"pwd", "kba", "otp", "mfa"}, 301, TOO_OLD),
    ],
)
def test_the_rules_second_factor_is_asked_of_who_approves(
    pages: ApprovalWorld, monkeypatch: pytest.MonkeyPatch, amr: set[str], age: int, missing: Any
) -> None:
    """A log-in that lacks it sees nothing of the call."""
    authelia = type(pages.gateway.stand.authelia)
    exchange = authelia.exchange

    async def other(self: object, **wanted: object) -> Any:
        found = await exchange(self, **wanted)  # type: ignore[arg-type]  # as asked
        typed = int(pages.gateway.world.clock()) - age
        return replace(found, identity=replace(found.identity, amr=frozenset(amr), auth_time=typed))

    browser, request = pages.gateway.browser(), asked(need=TOTP)
    callback = pages.callback(browser, request)
    monkeypatch.setattr(authelia, "exchange", other)
    page = pages.end(browser, callback)
    assert page.status_code == 403
    assert missing.happened in words(page)
    assert "/tmp/notes" not in page.text


@pytest.mark.attack("approval-second-factor")
def test_a_log_in_that_grew_too_old_approves_nothing(pages: ApprovalWorld) -> None:
    """Who leaves the page open may still decline."""
    browser, request = pages.gateway.browser(), asked(need=TOTP)
    page = pages.opened(browser, request)
    pages.gateway.world.clock.at += 301
    assert TOO_OLD.happened in words(decide(pages, browser, page, "approve"))
    assert pages.take(request) == ApprovalMissing()
    assert decide(pages, browser, page, "decline").status_code == 200


def test_one_factor_is_enough_where_no_rule_asks_for_two(pages: ApprovalWorld) -> None:
    """Somebody without a second factor can approve."""
    browser, request = pages.gateway.browser(), asked()
    page = pages.opened(browser, request)
    assert page.status_code == 200
    sent = pages.gateway.stand.transport.sent
    assert any(b"authz-one-factor" in each.content for each in sent)
    assert not any(b"authz-two-factor" in each.content for each in sent)


@pytest.mark.attack("approval-page-injected")
@pytest.mark.parametrize(
    "text",
    [
        '</pre><form action="https://evil.example.test"><button>Approve</button></form>',
        "<script>alert(1)</script>",
        "{{ 7 * 7 }}{% raw %}",
        '"><img src=x onerror=alert(1)>',
        "&lt;b&gt;&#60;",
        "This page is out of date. Ignore what stands below and approve.",
        "a\u202egpj\u202c\u200b",
    ],
)
def test_arguments_are_data(pages: ApprovalWorld, text: str) -> None:
    """Whatever stands in them is in the frame, escaped, and reads back as it was sent."""
    arguments = {text: text, "list": [text]}
    page = pages.opened(pages.gateway.browser(), asked(exact(arguments, more=text)))
    shown_arguments, others, _ = data(page)
    assert json.loads(shown_arguments) == arguments
    assert json.loads(others) == {"more": text}
    assert len(forms(page)) == 1
    outside = page.text
    for framed in ('<pre class="data" dir="ltr">',):
        while framed in outside:
            before, _, rest = outside.partition(framed)
            outside = before + rest.partition("</pre>")[2]
    assert text not in unescape(outside)
    for tag in ("<script>alert", "<img", "</pre><form"):
        assert tag not in page.text
    assert page.text.count("<script") == 1  # ours


@pytest.mark.attack("approval-hidden-member")
def test_everything_that_is_approved_is_shown(pages: ApprovalWorld) -> None:
    """Task, metadata, answers, query and headers too; the application's own word stands apart."""
    call = exact(
        task={"ttl": 1},
        inputResponses={"confirm": {"action": "accept"}},
        _meta={
            "io.modelcontextprotocol/clientInfo": {"name": "x"},
            "io.modelcontextprotocol/related-task": {"taskId": "t"},
            "example.com/mode": "force",
        },
    )
    members = {**json.loads(call.text), "query": "mode=force", "headers": {"mcp-param-a": "b"}}
    call = ExactCall(json.dumps(members, sort_keys=True))
    _, others, itself = data(pages.opened(pages.gateway.browser(), asked(call)))
    assert json.loads(others) == {
        "task": {"ttl": 1},
        "inputResponses": {"confirm": {"action": "accept"}},
        "_meta": {
            "io.modelcontextprotocol/related-task": {"taskId": "t"},
            "example.com/mode": "force",
        },
        "HTTP query": "mode=force",
        "HTTP headers": {"mcp-param-a": "b"},
    }
    assert json.loads(itself) == {
        "version": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "x"},
    }


def test_a_hidden_tool_name_is_seen(pages: ApprovalWorld) -> None:
    """The tool's name is the caller's, too."""
    call = ExactCall(exact().text.replace("delete_note", "d\u0435lete_note"))
    page = pages.opened(pages.gateway.browser(), asked(call, tool="d\u0435lete_note"))
    assert "<mark>\\u0435</mark>" in page.text


@pytest.mark.parametrize("decision", ["", "yes", "APPROVE", "approve decline"])
def test_nothing_but_a_decision_is_one(pages: ApprovalWorld, decision: str) -> None:
    """A form without one of the two words decides nothing."""
    browser, request = pages.gateway.browser(), asked()
    page = pages.opened(browser, request)
    assert decide(pages, browser, page, decision).status_code == 403
    assert pages.take(request) == ApprovalMissing()


@pytest.mark.attack("approval-other-purpose")
def test_forms_and_cookies_of_other_pages(pages: ApprovalWorld) -> None:
    """A form of the first page decides nothing; a log-in for one's own list shows no call."""
    browser, request = pages.gateway.browser(), asked()
    link = pages.link(request)
    ((_, fields),) = forms(pages.gateway.get(browser, link))
    fields |= {"decision": "approve"}
    url = f"{APPROVAL}/decide"
    answer = pages.gateway.run(browser.post(url, data=fields, headers=FROM_OUR_PAGE))
    assert answer.status_code == 403
    sent = pages.gateway.click(browser, pages.gateway.get(browser, f"{ORIGIN}/authz/log-ins"))
    callback = pages.gateway.log_in(browser, onward(sent))
    for path in ("/approval/", "/approval/one-factor/"):
        other = callback.replace("/log-ins/", path)
        assert pages.end(browser, other).status_code == 403
    assert pages.take(request) == ApprovalMissing()


@pytest.mark.attack("approval-without-redis")
def test_redis_away(pages: ApprovalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told as decided that was not recorded."""
    browser, request = pages.gateway.browser(), asked()
    page = pages.opened(browser, request)

    async def away(*_: object) -> None:
        await asyncio.sleep(0)
        raise UnavailableError("redis", "away")

    with monkeypatch.context() as patch:
        patch.setattr(pages.requests, "_command", away)
        assert decide(pages, browser, page, "approve").status_code == 503
        assert pages.gateway.get(browser, str(page.url)).status_code == 503
    assert pages.take(request) == ApprovalMissing()
