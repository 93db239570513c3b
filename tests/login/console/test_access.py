"""Who may use the console, against the whole front door with a real Valkey and the stand-in."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from authz.core.admin_pages import SESSION_COOKIE as COOKIE
from authz.core.browser_session import BrowserRule
from authz.core.principal import Person
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.activity import ActivityStore, DecisionKind, ProgramReport, UpstreamState
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.keys import RedisKeys, person_field
from authz.ledger.records import Revocation
from authz.login.console.access import ConsoleAccess, ConsoleSettings
from authz.login.protocol.values import UpstreamLogin
from authz.tokens.browser_sessions import open_session, seal_session
from tests.demo.kit import ISSUER, JOHN
from tests.login.conftest import Play
from tests.login.console.console_kit import (
    HOME,
    Operator,
    change_person,
    is_console,
    with_console,
)
from tests.login.front import GATEWAY, FrontDoorClient, FrontDoorStage, bob, onward
from tests.login.web.pages_kit import FROM_OUR_PAGE, forms, words

SECTIONS = ("", "/log-ins", "/clients", "/revocations", "/proofs", "/refusals", "/limits", "/rules")


def test_an_operator_logs_in_with_a_second_factor_and_leaves(play: Play) -> None:
    """A person of a named group gets in by password and TOTP, is shown the console, and logs out
    for good: the cookie of before counts no more, and what the issuer gave is not in any page.
    """

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        first = await operator.get()
        assert "with your second factor" in words(first)
        assert "log-out" not in first.text
        page = await operator.log_in()
        assert is_console(page)
        assert "john" in words(page)
        cookies = dict(operator.browser.cookies)
        left = await operator.follow(await operator.click(page, "Log out"))
        assert not is_console(left)
        again = await operator.browser.get(HOME, headers={"Cookie": f"{COOKIE}={cookies[COOKIE]}"})
        assert not is_console(again)
        assert len(found.upstream.calls("revocation")) == 1
        (pushed,) = found.upstream.calls("pushed-authorization-request")
        assert b"client_id=authz-two-factor" in pushed.content
        assert b"groups" in pushed.content

    play(scene, with_console)


def test_without_a_console_there_is_none(play: Play) -> None:
    """Left out of authz.yaml, no path of the console is there."""

    async def scene(found: FrontDoorStage) -> None:
        for path in (*SECTIONS, "/log-in", "/callback"):
            assert (await Operator(found).get(path)).status_code == 404

    play(scene)


def test_without_a_group_nobody_gets_in(play: Play) -> None:
    """A person of no named group is told so, gets no session, and the log names the refusal."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found, bob())
        refused = await operator.log_in()
        assert refused.status_code == 403
        assert "not for your account" in words(refused)
        assert COOKIE not in operator.browser.cookies
        assert not is_console(await operator.get())
        assert ("console", "refused") in [
            (line.get("step"), line.get("outcome")) for line in found.lines()
        ]

    play(scene, with_console)


def test_without_the_one_time_code_nobody_gets_in(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-in that proves a password only, or a second factor that is no one-time code, is
    refused, whatever client of ours it was made by.
    """

    async def scene(found: FrontDoorStage) -> None:
        exchange = found.built.upstream.exchange
        for amr in (
            frozenset({"pwd", "kba"}),
            frozenset({"mfa", "pop", "hwk"}),
            frozenset({"otp"}),
        ):

            async def weaker(amr: frozenset[str] = amr, **asked: Any) -> UpstreamLogin:
                login = await exchange(**asked)
                return replace(login, identity=replace(login.identity, amr=amr))

            with monkeypatch.context() as patch:
                patch.setattr(found.built.upstream, "exchange", weaker)
                operator = Operator(found)
                refused = await operator.log_in()
            assert refused.status_code == 403
            assert "second factor" in words(refused)
            assert not is_console(await operator.get())

    play(scene, with_console)


async def _revoke(found: FrontDoorStage, until: int | None) -> None:
    await found.ledger.revoke(person_field(Person(ISSUER, JOHN)), Revocation(until, None, ""))


def end_tokens(found: FrontDoorStage) -> None:
    for token in found.issuer.memory.tokens.values():
        token.grant.revoked = True


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda found: change_person(found, JOHN, groups=("dev",)), id="group"),
        pytest.param(lambda found: _revoke(found, None), id="revoked"),
        pytest.param(lambda found: _revoke(found, int(time.time()) + 60), id="revoked-until-now"),
        pytest.param(end_tokens, id="token-ended"),
    ],
)
def test_a_change_counts_at_the_next_request(
    play: Play, change: Callable[[FrontDoorStage], object]
) -> None:
    """Who leaves the group, is revoked, or whose log-in ended at the issuer, is out at once: for
    what is shown and for what is done.
    """

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        assert is_console(await operator.log_in())
        page = await operator.get("/revocations")
        result = change(found)
        if hasattr(result, "__await__"):
            await result
        for path in SECTIONS:
            assert not is_console(await operator.get(path))
        sent = await operator.click(page, 'name="kind"', kind="everything")
        assert sent.status_code == 403
        if change is end_tokens:  # Authelia locks the address of who asks it in vain
            assert not found.keys("browser-session")

    play(scene, with_console)


def test_a_session_ends_by_itself(play: Play) -> None:
    """After its time a session counts no more, whatever was done meanwhile."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        now = time.time()
        assert is_console(await operator.log_in())
        found.built.clock = lambda: now
        (key,) = found.keys("browser-session")
        ttl = found.valkey.command("PTTL", key)
        assert 0 < ttl <= 1_800_000
        found.valkey.command("DEL", key)
        assert not is_console(await operator.get())

    play(scene, with_console)


def test_an_old_log_in_begins_no_session(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer is asked for a recent log-in, and one that it gives all the same is refused."""

    async def scene(found: FrontDoorStage) -> None:
        exchange = found.built.upstream.exchange

        async def older(**asked: Any) -> UpstreamLogin:
            login = await exchange(**asked)
            then = login.identity.auth_time - 2000
            return replace(login, identity=replace(login.identity, auth_time=then))

        monkeypatch.setattr(found.built.upstream, "exchange", older)
        operator = Operator(found)
        refused = await operator.log_in()
        assert refused.status_code == 403
        assert "too old" in words(refused)
        assert not is_console(await operator.get())
        (pushed,) = found.upstream.calls("pushed-authorization-request")
        assert b"max_age=1800" in pushed.content

    play(scene, with_console)


def test_nobody_gets_in_while_the_issuer_or_redis_is_away(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where groups or sessions cannot be read, the console says that something is away, and does
    nothing.
    """

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/revocations")
        found.upstream.away = True
        assert (await operator.get()).status_code == 503
        sent = await operator.click(page, 'name="kind"', kind="everything")
        assert sent.status_code == 503
        found.upstream.away = False
        assert is_console(await operator.get())

        async def gone(_: bytes) -> Any:
            raise ConnectionError

        with monkeypatch.context() as patch:
            patch.setattr(found.built._redis, "_send", gone)
            assert (await operator.get()).status_code == 503
            sent = await operator.click(page, 'name="kind"', kind="everything")
            assert sent.status_code == 503
            # A session that stays says so.
            assert (await operator.click(page, "Log out")).status_code == 503
        assert is_console(await operator.get())

    play(scene, with_console)


def test_log_out_needs_nobody(play: Play) -> None:
    """It works while the issuer is away, and for whom the console admits no more; twice, too."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        page = await operator.log_in()
        token = operator.browser.cookies[COOKIE]
        found.upstream.away = True
        for _ in range(2):
            sent = await operator.click(page, "Log out")
            assert sent.status_code == 303
        assert not found.keys("browser-session")
        found.upstream.away = False
        again = await operator.browser.get(HOME, headers={"Cookie": f"{COOKIE}={token}"})
        assert not is_console(again)
        other = Operator(found)
        page = await other.log_in()
        change_person(found, JOHN, groups=("dev",))
        assert (await other.click(page, "Log out")).status_code == 303
        assert not found.keys("browser-session")

    play(scene, with_console)


def test_a_token_of_an_mcp_client_or_machine_opens_nothing(play: Play) -> None:
    """No bearer token, and no cookie made of one, is a session: a machine has none."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        code = (await client.log_in())["code"]
        token = (await client.exchange(code)).json()["access_token"]
        browser = found.browser()
        for headers in (
            {"Authorization": f"Bearer {token}"},
            {"Cookie": f"{COOKIE}={token}"},
            {"Cookie": f"{COOKIE}={'a' * 43}"},
            {"Cookie": f"{COOKIE}={'a' * 43}; {COOKIE}={'a' * 43}"},
            {"Cookie": f"{COOKIE}="},
        ):
            for path in SECTIONS:
                page = await browser.get(HOME + path, headers=headers)
                assert not is_console(page)
                assert "Refusals" not in page.text

    play(scene, with_console)


@pytest.mark.attack("page-session-of-another")
def test_a_session_of_a_page_opens_no_console(play: Play) -> None:
    """The same person's, with the same rule, sealed by the same keys; nor a copy of the record of
    a session at the console.
    """

    async def scene(found: FrontDoorStage) -> None:
        operator, thief = Operator(found), found.browser()
        assert is_console(await operator.log_in())
        (key,) = found.keys("browser-session")
        stolen = found.valkey.command("GET", key)
        keys = RedisKeys(found.deployment)
        records, page = SessionRecords(found.ledger.command, keys), "https://grafana.example.com"
        token = operator.browser.cookies[COOKIE]
        session = open_session(found.built.sealer, stolen, GATEWAY, token)
        mine = "m" * 43
        of_page = seal_session(found.built.sealer, session, page, mine, 60)
        for text in (of_page, stolen):
            await records.put(GATEWAY, mine, text, 60)
            await records.put(page, mine, text, 60)
            sent = await thief.get(HOME, headers={"Cookie": f"{COOKIE}={mine}"})
            assert not is_console(sent)

    play(scene, with_console)


def test_a_session_is_no_log_in_of_the_persons_own_page(play: Play) -> None:
    """The cookie of a person's own page opens no console, though it is the same person."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        own = await operator.browser.get(f"{GATEWAY}/authz/log-ins")
        sent = await operator.click(own)
        callback = await operator.person.log_in(operator.browser, onward(sent))
        await operator.browser.get(callback)
        assert "in your name" in words(await operator.browser.get(f"{GATEWAY}/authz/log-ins"))
        assert not is_console(await operator.get())

    play(scene, with_console)


def test_forms_of_other_sites_and_browsers_do_nothing(play: Play) -> None:
    """A form counts from our page in this browser alone: not from another origin or site, without
    its token, with another form's or another browser's.
    """

    async def scene(found: FrontDoorStage) -> None:
        operator, other = Operator(found), Operator(found)
        page = await operator.log_in()
        foreign = await other.log_in()
        for headers in (
            {},
            {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "null"},
            FROM_OUR_PAGE | {"Sec-Fetch-Site": "same-site"},
        ):
            assert (await operator.click(page, "Log out", headers=headers)).status_code == 403
        (_, fields) = forms(foreign)[-1]
        for token in ("", "x", fields["form_token"]):
            sent = await operator.click(page, "Log out", form_token=token)
            assert sent.status_code == 403
        assert is_console(await operator.get())
        assert (await operator.browser.get(f"{HOME}/log-out")).status_code == 405

    play(scene, with_console)


def test_pages_cannot_be_framed_kept_or_made_to_load_anything(play: Play) -> None:
    """Every page has the strict headers; its style and script are ours alone, by their hashes."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        page = await operator.log_in()
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert " style=" not in page.text
        assert page.text.count("<script") == 1

    play(scene, with_console)


def test_a_rule_that_asks_for_nothing_is_no_rule() -> None:
    """A console without a group or second factor cannot be built."""
    totp, none = SecondFactor(Method.TOTP), SecondFactor(Method.NONE)
    for rule in (
        BrowserRule(None, totp),
        BrowserRule(frozenset(), totp),
        BrowserRule(frozenset("a")),
        BrowserRule(frozenset("a"), none),
    ):
        with pytest.raises(ValueError, match="group and a second factor"):
            ConsoleAccess(ConsoleSettings(rule, 60), **dict.fromkeys(_PARTS))  # type: ignore[arg-type]


_PARTS = (
    "origin", "sessions", "logins", "cookies", "pages", "errors", "clock", "log",
)  # fmt: skip


def test_the_overview_shows_what_programs_say(play: Play) -> None:
    """What each program counted and how it is stands on the page, with what is wrong; the name of a
    program is text, whoever wrote it.
    """

    async def scene(found: FrontDoorStage) -> None:
        now = int(time.time())
        store = ActivityStore(found.ledger.command, RedisKeys(found.deployment))
        report = ProgramReport(
            "authz serve", "<script>", 3, "i", now, "1.2.3", "0123456789ab", {"redis": ""},
            {"audit": "the trail is <b>not</b> written"}, "redis", now + 86_400,
            {"server files": UpstreamState.AWAY, "page <i>": UpstreamState.WELL},
        )  # fmt: skip
        await store.add(report, {DecisionKind("files", "over_limit"): 1234})
        await found.built._reporter.report()
        operator = Operator(found)
        page = await operator.log_in()
        said = words(page)
        assert page.text.count("<script") == 1
        for each in ("1234", "over_limit", "worker 3", "not</b> written", "within three weeks",
                     "another one", "authz pages at", "Envoy does not reach 1", "away server files",
                     "well page <i>"):  # fmt: skip
            assert each in said
        assert "<rect" in page.text

    play(scene, with_console)
