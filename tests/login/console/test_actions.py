"""What an operator sees and changes, against the whole front door with a real Valkey."""

import asyncio
import json
import time
from typing import Any, Final

import httpx
import pytest

from authz.audit.store import TrailStore
from authz.core.ledger import StepUpKey, UnavailableError
from authz.core.limits import Take, bucket_id
from authz.core.principal import Person
from authz.core.second_factor import Method
from authz.ledger.keys import RedisKeys, person_field
from authz.ledger.limit_usage import LimitedCaller, limits_of
from authz.login.console import log_ins
from authz.login.store.blocklist import Blocklist, BlocklistEntry
from authz.login.store.grants import GrantStore
from tests.demo.kit import BOB, ISSUER, JOHN
from tests.ledger.queries import query
from tests.login.conftest import Play
from tests.login.console.console_kit import HOME, Operator, is_console, with_console
from tests.login.front import CONFIGURED, FrontDoorClient, FrontDoorStage, bob
from tests.login.web.pages_kit import FROM_OUR_PAGE, forms, words

HOSTILE: Final = 'x"><script>alert(1)</script><img src=x onerror=y>\u202egnp'


async def logged_in_client(found: FrontDoorStage, **metadata: Any) -> FrontDoorClient:
    """Log Bob in with a client of a hostile name."""
    client = FrontDoorClient(found)
    await client.register(client_name=HOSTILE, **metadata)
    code = (await client.log_in(bob()))["code"]
    assert (await client.exchange(code)).status_code == 200
    return client


async def confirmed(operator: Operator, page: httpx.Response, label: str) -> httpx.Response:
    """Click, confirm with a reason, and return the list that comes then."""
    asked = await operator.click(page, label)
    assert asked.status_code == 200, words(asked)
    assert "Leave it" in words(asked)
    sent = await operator.click(asked, "reason", reason="seen in a test")
    assert sent.status_code == 303, words(sent)
    return await operator.follow(sent)


async def operator_records(found: FrontDoorStage) -> list[dict[str, Any]]:
    """Return what operators did, by the audit trail, the latest first."""
    store = TrailStore(found.ledger.command, RedisKeys(found.deployment))
    for _ in range(600):  # the trail is written beside what is done
        entries = [json.loads(each.text) async for each in store.backwards()]
        records = [each for each in entries if each["event"] == "operator"]
        if records:
            return records
        await asyncio.sleep(0.05)
    raise AssertionError("no record")


def test_a_log_in_is_ended_once_it_was_asked(play: Play) -> None:
    """Ending one asks first, ends it for the client, and is in the trail with who and why."""

    async def scene(found: FrontDoorStage) -> None:
        found.built.start()
        client = await logged_in_client(found)
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/log-ins?q=bob")
        assert "bob" in words(page)
        asked = await operator.click(page, "End:")
        assert "End this log-in?" in words(asked)
        assert "bob" in words(await operator.get("/log-ins"))  # nothing is done yet
        after = await confirmed(operator, page, "End:")
        assert "Done: end it." in words(after)
        assert "Nobody is logged in." in words(after)
        (record,) = await operator_records(found)
        assert record["action"] == "end_log_in"
        assert (record["by"], record["by_subject"]) == ("john", JOHN)
        assert record["why"] == "seen in a test"
        assert ("operator", "end_log_in") in [
            (line["event"], line.get("action")) for line in found.lines()
        ]
        del client

    play(scene, with_console)


def test_a_client_is_blocked_and_unblocked(play: Play) -> None:
    """A block ends the client's log-ins and refuses new ones, until it is lifted."""

    async def scene(found: FrontDoorStage) -> None:
        client = await logged_in_client(found)
        operator = Operator(found)
        await operator.log_in()
        after = await confirmed(operator, await operator.get("/clients"), "Block:")
        assert "No client has a log-in." in words(after)
        refused = await client.authorize()
        assert "blocked" in words(refused)
        again = await confirmed(operator, after, "Unblock:")
        assert "No client is blocked." in words(again)
        assert "blocked" not in words(await client.authorize())

    play(scene, with_console)


@pytest.mark.attack("console: a revocation of nobody")
def test_a_person_is_revoked_by_what_people_call_them(play: Play) -> None:
    """A user name is no subject: it leads to its person's, and one that nobody has is told."""

    async def scene(found: FrontDoorStage) -> None:
        await logged_in_client(found)
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/revocations")
        for kind, name in (("person", "bobb"), ("client", "claud"), ("grant", "5Qx0")):
            unknown = await operator.click(page, 'name="kind"', FROM_OUR_PAGE, kind=kind, name=name)
            assert unknown.status_code == 404
            assert "Nobody is known by that name" in words(unknown)
            forced = await operator.click(
                page, 'name="kind"', FROM_OUR_PAGE, kind=kind, name=name, force="yes"
            )
            assert "Nobody is known by that name" in words(forced)
            assert "Revoke these tokens?" in words(forced)
        (grant,) = await found.built.grants.of(BOB)
        for kind, name, called in (
            ("grant", grant.id, f"the log-in {grant.id}"),
            ("client", grant.client_id[:200], "the client"),
            ("client", "authz-pages", "the client authz-pages"),
            ("client", CONFIGURED, f"the client {CONFIGURED}"),
        ):
            known = await operator.click(page, 'name="kind"', FROM_OUR_PAGE, kind=kind, name=name)
            assert called in words(known)
            assert "Nobody" not in words(known)
        assert not await found.ledger.revocations()
        asked = await operator.click(page, 'name="kind"', FROM_OUR_PAGE, kind="person", name="bob")
        assert f"(subject {BOB})" in words(asked)
        assert "Nobody" not in words(asked)
        await operator.click(asked, "reason")
        assert list(await found.ledger.revocations()) == [person_field(Person(ISSUER, BOB))]

    play(scene, with_console)


@pytest.mark.attack("console: a change without a record")
def test_what_was_done_in_part_has_a_record(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis goes away after the block is there: who did that is in the trail all the same."""

    async def half(_: GrantStore, blocks: Blocklist, entry: BlocklistEntry) -> int:
        await blocks.block(entry)
        raise UnavailableError("redis", "gone")

    monkeypatch.setattr(log_ins, "block", half)

    async def scene(found: FrontDoorStage) -> None:
        found.built.start()
        await logged_in_client(found)
        operator = Operator(found)
        await operator.log_in()
        asked = await operator.click(await operator.get("/clients"), "Block:")
        answer = await operator.click(asked, "reason", reason="seen in a test")
        assert answer.status_code == 503
        (record,) = await operator_records(found)
        assert (record["action"], record["outcome"]) == ("block", "unknown")
        assert (record["by_subject"], record["why"]) == (JOHN, "seen in a test")

    play(scene, with_console)


@pytest.mark.parametrize(
    ("kind", "name", "issued"),
    [
        ("person", BOB, ""),
        ("person", BOB, "now"),
        ("client", CONFIGURED, ""),
        ("everything", "", ""),
    ],
)
def test_a_revocation_is_added_and_lifted(play: Play, kind: str, name: str, issued: str) -> None:
    """What the form names is revoked as a decision asks for it; lifting asks, too."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/revocations")
        checked = {"issued": issued} if issued else {}
        asked = await operator.click(
            page, 'name="kind"', FROM_OUR_PAGE, kind=kind, name=name, force="yes", **checked
        )
        assert "Revoke these tokens?" in words(asked)
        assert not await found.ledger.revocations()
        sent = await operator.click(asked, "reason", reason="laptop stolen")
        (revocation,) = (await found.ledger.revocations()).values()
        assert (revocation.issued_until is None) is (not issued and kind != "everything")
        assert "laptop stolen" in revocation.metadata
        if kind == "everything":  # the operator's own session, too
            assert not is_console(await operator.follow(sent))
            return
        page = await operator.follow(sent)
        assert "laptop stolen" in words(page)
        if issued:
            assert "Lift:" not in page.text
            return
        await confirmed(operator, page, "Lift:")
        (revocation,) = (await found.ledger.revocations()).values()
        assert revocation.issued_until is not None

    play(scene, with_console)


def test_a_name_that_no_token_has_is_refused(play: Play) -> None:
    """Nothing is revoked for a kind that there is not, or a name that no token can have."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/revocations")
        for kind, name in (
            ("person", ""),
            ("person", "a\u202eb"),
            ("person", "x" * 3000),
            ("token", "x"),
            ("person-digest", "00"),
            ("", "x"),
        ):
            sent = await operator.click(page, 'name="kind"', kind=kind, name=name)
            assert sent.status_code == 400
        assert not await found.ledger.revocations()

    play(scene, with_console)


def test_a_step_up_is_ended(play: Play) -> None:
    """A step-up of somebody's log-in is listed, and ended for the ledger."""

    async def scene(found: FrontDoorStage) -> None:
        await logged_in_client(found)
        (grant,) = await found.built.grants.of(BOB)
        key = StepUpKey(Person(ISSUER, BOB), grant.id, "files")
        await found.ledger.record_step_up(key, Method.TOTP, int(time.time()), 600)
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/proofs")
        assert "Step-up" in words(page)
        after = await confirmed(operator, page, "End:")
        assert "None found here." in words(after)
        assert not await found.ledger.step_ups([key])

    play(scene, with_console)


def test_a_limit_is_shown_and_reset(play: Play) -> None:
    """Who has used a limit is listed by name, and after the reset the whole quota is there."""

    async def scene(found: FrontDoorStage) -> None:
        await logged_in_client(found)
        (grant,) = await found.built.grants.of(BOB)
        principal = LimitedCaller(BOB, grant.client, by_front_door=True).principal(ISSUER)
        policy = found.built._settings.policy
        limit = next(each for each in limits_of(policy) if each.place == "files")
        take = Take(bucket_id(limit, principal, ""), limit)
        for _ in range(3):
            await found.ledger.take(query(take))
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/limits")
        assert f"3 of {limit.quota}" in words(page)
        assert "bob" in words(page)
        after = await confirmed(operator, page, "Reset:")
        assert "Nobody has used any" in words(after)

    play(scene, with_console)


def test_hostile_names_are_shown_and_do_nothing(play: Play) -> None:
    """What a client calls itself is text on every page that shows it: escaped, short, and freed of
    what turns text around.
    """

    async def scene(found: FrontDoorStage) -> None:
        await logged_in_client(found)
        operator = Operator(found)
        await operator.log_in()
        for path in ("/log-ins", "/clients", "/proofs", "/limits"):
            page = await operator.get(path)
            assert is_console(page)
            assert page.text.count("<script") == 1
            assert "<img" not in page.text
            assert "\u202e" not in page.text
        searched = await operator.get("/log-ins?q=" + "%22%3E%3Cscript%3E" + "a" * 5000)
        assert searched.text.count("<script") == 1
        assert len(searched.text) < 60_000

    play(scene, with_console)


def test_nothing_is_done_without_the_page_that_asks(play: Play) -> None:
    """What the list holds does not do it; a form of another page, session, browser or origin
    neither; and what was done already is not done again.
    """

    async def scene(found: FrontDoorStage) -> None:
        await logged_in_client(found)
        operator, other = Operator(found), Operator(found)
        await operator.log_in()
        page = await operator.get("/log-ins")
        asked = await operator.click(page, "End:")
        listed = next(fields for action, fields in forms(page) if action.endswith("/ask"))
        confirming = next(fields for action, fields in forms(asked) if action.endswith("/do"))

        async def send(who: Operator, fields: dict[str, str], **headers: str) -> httpx.Response:
            sent = {**FROM_OUR_PAGE, **headers}
            return await who.browser.post(f"{HOME}/do", data=fields, headers=sent)

        await other.log_in()
        refused = [
            await send(operator, listed),
            await send(operator, {}),
            await send(other, confirming),
            await send(operator, confirming, Origin="https://evil.example"),
            await send(operator, confirming, **{"Sec-Fetch-Site": "cross-site"}),
            await send(Operator(found), confirming),
            await send(operator, confirming | {"reason": "a\u202eb"}),
            await send(operator, confirming | {"reason": "x" * 201}),
        ]
        assert [each.status_code for each in refused] == [403] * 6 + [400] * 2
        assert (await operator.browser.get(f"{HOME}/do")).status_code == 405
        assert "bob" in words(await operator.get("/log-ins"))
        # The same browser with a session of later: the form was of the one before.
        await operator.click(await operator.get(), "Log out")
        assert is_console(await operator.log_in())
        assert (await send(operator, confirming)).status_code == 403
        page = await operator.get("/log-ins")
        asked = await operator.click(page, "End:")
        assert (await operator.click(asked, "reason")).status_code == 303
        assert (await operator.click(asked, "reason")).status_code == 409

    play(scene, with_console)


@pytest.mark.attack("console: a form sent again")
def test_a_confirmation_counts_once(play: Play) -> None:
    """Sent twice at once, or again after another operator undid it, it does nothing more."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/revocations")
        asked = await operator.click(
            page, 'name="kind"', FROM_OUR_PAGE, kind="client", name=CONFIGURED
        )
        answers = await asyncio.gather(*(operator.click(asked, "reason") for _ in range(4)))
        assert sorted(each.status_code for each in answers) == [303, 409, 409, 409]
        await confirmed(operator, await operator.get("/revocations"), "Lift:")
        again = await operator.click(asked, "reason")
        assert (again.status_code, "sent already" in words(again)) == (409, True)
        (revocation,) = (await found.ledger.revocations()).values()
        assert revocation.issued_until is not None
        # Shown anew it counts anew.
        asked = await operator.click(page, 'name="kind"', kind="client", name=CONFIGURED)
        assert (await operator.click(asked, "reason")).status_code == 303

    play(scene, with_console)
