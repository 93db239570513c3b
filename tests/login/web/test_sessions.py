"""One's own log-ins, against the stand-in issuer."""

from collections.abc import Iterator

import httpx
import pytest

from authz.login.clients.identity import identify
from authz.login.protocol.values import ClientKind, OAuthClient
from authz.login.web.sessions import OwnGrant, OwnOperation, OwnProof, ProofId, ProofKind
from tests.demo.kit import BOB, JOHN, DemoWorld
from tests.login.front import onward
from tests.login.web.pages_kit import (
    FROM_OUR_PAGE,
    LOG_INS,
    FakeGateway,
    forms,
    gateway,
    words,
)


@pytest.fixture
def pages(world: DemoWorld) -> Iterator[FakeGateway]:
    with gateway(world) as found:
        found.grants.grants = {
            JOHN: [grant("g1", title="Claude"), grant("g2", uri="http://127.0.0.1/cb")],
            BOB: [grant("g3", title="Bob's <b>own</b>")],
        }
        yield found


def grant(name: str, title: str = "", uri: str = "https://claude.ai/cb") -> OwnGrant:
    client = OAuthClient("x", ClientKind.DOCUMENT, title, "claude.ai", (uri,))
    who = identify(client, uri)
    return OwnGrant(name, who, "notes", ("mcp:notes",), 1795380000, 1797972000)


def log_in(
    pages: FakeGateway, browser: httpx.AsyncClient, username: str = "john"
) -> httpx.Response:
    sent = pages.click(browser, pages.get(browser, LOG_INS))
    callback = pages.log_in(browser, onward(sent), username=username)
    answer = pages.get(browser, callback)
    assert answer.status_code == 303
    assert answer.headers["location"] == LOG_INS
    return pages.get(browser, LOG_INS)


def test_shows_what_is_theirs(pages: FakeGateway) -> None:
    """A person sees their own log-ins after a log-in with a password, and nobody else's."""
    browser = pages.browser()
    assert "claude.ai" not in pages.get(browser, LOG_INS).text
    page = log_in(pages, browser)
    for said in ("john", "claude.ai", "“Claude”", "unverified program", "notes", "mcp:notes"):
        assert said in words(page)
    assert "Bob" not in page.text
    other = log_in(pages, pages.browser(), "bob")
    assert "Bob's <b>own</b>" in words(other)
    assert "Claude" not in other.text


def test_shows_what_was_done_lately(pages: FakeGateway) -> None:
    """A person sees their own latest operations, escaped, and when each log-in was last used."""
    hostile = "x</code><script>\u202egnp"
    pages.grants.operations = {
        JOHN: [
            OwnOperation(1795390000 - n, "g1", "claude", "notes", hostile, "tools/call", n > 0)
            for n in range(40)
        ],
        BOB: [OwnOperation(1795390000, "g3", "cursor", "secret", "drop", "tools/call", True)],
    }
    page = log_in(pages, pages.browser())

    assert "Lately in your name" in words(page)
    assert "last used" in words(page)
    assert page.text.count("x&lt;/code&gt;") == 20
    assert words(page).count("refused") == 1
    assert page.text.count("<script>") == 1  # ours
    assert "\u202e" not in page.text
    assert "cursor" not in words(page)


def test_end(pages: FakeGateway) -> None:
    """A button ends one log-in."""
    browser = pages.browser()
    page = log_in(pages, browser)
    answer = pages.click(browser, page, number=1)
    assert answer.status_code == 303
    assert pages.grants.ended == [(JOHN, "g2")]
    assert "unverified program" not in words(pages.get(browser, LOG_INS))


HOSTILE = "x</code><script>\u202egnp"
CALL = ProofId(ProofKind.CALL, "g1", "notes", "ab" * 48)


def give_proofs(pages: FakeGateway) -> None:
    """Let John have stepped up once and approved twice, and Bob once."""
    step_up, tool = (
        ProofId(ProofKind.STEP_UP, "g2", "notes"),
        ProofId(ProofKind.TOOL, "g1", "notes"),
    )
    pages.proofs.kept = {
        JOHN: [
            OwnProof(CALL, "claude.ai", "notes", 1795390030, HOSTILE, 1795390330),
            OwnProof(tool, "claude.ai", "notes", 1795390020, "write_note", 1795390620),
            OwnProof(step_up, "127.0.0.1", "notes", 1795390010),
            OwnProof(ProofId(ProofKind.STEP_UP, "g9", "ended"), "gone", "ended", 1795390000),
        ],
        BOB: [OwnProof(ProofId(ProofKind.STEP_UP, "g3", "secret"), "cursor", "secret", 1795390000)],
    }


def test_shows_and_ends_what_was_proved_and_approved(pages: FakeGateway) -> None:
    """Each step-up and approval of live log-ins is there, escaped, with a button that ends it."""
    give_proofs(pages)
    browser = pages.browser()
    page = log_in(pages, browser)

    assert "Confirmed and approved" in words(page)
    assert words(page).count("may use") == 2
    assert words(page).count("for the one call that you approved") == 1
    assert words(page).count("what needs a second factor") == 1
    assert page.text.count("<script>") == 1  # ours
    for foreign in ("\u202e", "secret", "gone"):
        assert foreign not in page.text

    ends = [n for n, (action, _) in enumerate(forms(page)) if action.endswith("/end-proof")]
    assert len(ends) == 3
    assert pages.click(browser, page, number=ends[0]).status_code == 303
    left = pages.get(browser, LOG_INS)
    assert "the one call" not in words(left)
    assert [each.id.kind for each in pages.proofs.kept[JOHN]] == [
        ProofKind.TOOL, ProofKind.STEP_UP, ProofKind.STEP_UP
    ]  # fmt: skip


@pytest.mark.attack("log-ins-of-another")
def test_a_proof_of_another_is_not_ended(pages: FakeGateway) -> None:
    """A form that ends a step-up or an approval serves its person alone, in this browser."""
    give_proofs(pages)
    browser, other = pages.browser(), pages.browser()
    page = log_in(pages, browser)
    log_in(pages, other, "bob")
    number = next(n for n, (action, _) in enumerate(forms(page)) if "end-proof" in action)
    assert pages.click(other, page, number=number).status_code == 403
    log_out(pages, browser, page)
    assert pages.click(browser, page, number=number).status_code == 303
    pages.run(browser.get("https://auth.example.test/logout"))
    log_in(pages, browser, "bob")
    assert pages.click(browser, page, number=number).status_code == 303
    assert not pages.proofs.asked


@pytest.mark.attack("log-ins-of-another")
def test_end_of_another(pages: FakeGateway) -> None:
    """A form of one person's page ends nothing for another, in the same browser either."""
    browser, other = pages.browser(), pages.browser()
    page = log_in(pages, browser)
    log_in(pages, other, "bob")
    assert pages.click(other, page).status_code == 403
    # The same browser, handed to bob: the form is of this browser, but not of this person.
    log_out(pages, browser, page)
    pages.run(browser.get("https://auth.example.test/logout"))
    log_in(pages, browser, "bob")
    assert pages.click(browser, page).status_code == 303
    assert not pages.grants.asked


def log_out(pages: FakeGateway, browser: httpx.AsyncClient, page: httpx.Response) -> None:
    answer = pages.click(browser, page, number=len(forms(page)) - 1)
    assert answer.status_code == 303
    assert "claude.ai" not in pages.get(browser, LOG_INS).text


def test_leave(pages: FakeGateway) -> None:
    """Whoever leaves the page has to log in again to see it, and to end anything."""
    browser = pages.browser()
    page = log_in(pages, browser)
    log_out(pages, browser, page)
    assert pages.click(browser, page).status_code == 303
    assert not pages.grants.ended


def test_ten_minutes(pages: FakeGateway) -> None:
    """The page is there for ten minutes."""
    browser = pages.browser()
    log_in(pages, browser)
    pages.world.clock.at += 600
    assert "claude.ai" not in pages.get(browser, LOG_INS).text


@pytest.mark.attack("log-ins-cross-site")
@pytest.mark.parametrize("path", ["", "/end", "/end-proof", "/leave"])
def test_cross_site(pages: FakeGateway, path: str) -> None:
    """Another site's form logs nobody in, ends nothing, leaves nothing."""
    browser = pages.browser()
    page = log_in(pages, browser)
    sent = len(pages.stand.transport.sent)
    for headers in ({"Origin": "https://evil.example.test"}, FROM_OUR_PAGE):
        for fields in ({}, {"form_token": "x"}):
            answer = pages.run(browser.post(LOG_INS + path, data=fields, headers=headers))
            assert answer.status_code == 403
    assert pages.click(browser, page, headers={"Origin": "null"}).status_code == 403
    assert len(pages.stand.transport.sent) == sent
    assert not pages.grants.ended
    assert "claude.ai" in pages.get(browser, LOG_INS).text


@pytest.mark.attack("log-in-forced")
def test_log_in_of_another_browser(pages: FakeGateway) -> None:
    """Nobody is logged in by a link: the callback belongs to the browser that clicked."""
    attacker, victim = pages.browser(), pages.browser()
    sent = pages.click(attacker, pages.get(attacker, LOG_INS))
    callback = pages.log_in(attacker, onward(sent), username="bob")
    assert pages.get(victim, callback).status_code == 403
    assert "Bob" not in pages.get(victim, LOG_INS).text


def test_step_up_is_no_session(pages: FakeGateway) -> None:
    """A step-up in a browser shows no log-ins in it."""
    browser = pages.browser()
    pages.step_up(browser)
    assert "claude.ai" not in pages.get(browser, LOG_INS).text
