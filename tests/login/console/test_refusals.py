"""Refusals and rules as the console shows them."""

import time
from typing import Final

from authz.audit.chain import AuditChain, TrailKeys
from authz.audit.record import AuditEvent, body
from authz.audit.store import TrailStore
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys
from tests.demo.kit import BOB, ISSUER
from tests.login.conftest import Play
from tests.login.console.console_kit import Operator, is_console, with_console
from tests.login.front import FrontDoorStage
from tests.login.web.pages_kit import words

HOSTILE: Final = "</code><script>x()</script>"


async def write(found: FrontDoorStage, count: int, **changes: str) -> None:
    """Write refusals into the trail, an allowed operation between each two."""
    store = TrailStore(found.ledger.command, RedisKeys(found.deployment))
    chain = AuditChain(TrailKeys().newest)
    fields = {
        "verdict": "deny", "reason": "insufficient_scope", "request_id": "r-77", "server": "files",
        "tool": "admin_drop", "subject": BOB, "account": "bob", "client_id": "claude",
        "rule": "servers.files.tools.admin_*",
    } | changes  # fmt: skip
    for number in range(count):
        said = fields | {"request_id": f"r-{number}"}
        allowed = said | {"verdict": "allow", "reason": ""}
        records = [
            chain.add(body(AuditEvent.DECISION, tuple(each.items())), time.time())
            for each in (said, allowed)
        ]
        await store.append(chain.name, records, [Person(ISSUER, BOB)] * 2, 3600)


def test_refusals_are_listed_searched_and_explained(play: Play) -> None:
    """The latest come first, a bounded page at a time; each is explained with what its reason
    means, what changes it, and the rules in force that such a call meets.
    """

    async def scene(found: FrontDoorStage) -> None:
        await write(found, 60)
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/refusals")
        assert page.text.count("Explain</a>") == 50
        last = page.text.rpartition('name="after" value="')[2].partition('"')[0]
        assert (await operator.get(f"/refusals?after={last}")).text.count("Explain</a>") == 10
        assert "None found here." in words(await operator.get("/refusals?q=nobody"))
        assert (await operator.get("/refusals?q=r-7")).text.count("Explain</a>") == 1
        link = page.text.partition("/refusals/explain?id=")[2].partition('"')[0]
        explained = await operator.get(f"/refusals/explain?id={link}")
        said = words(explained)
        for each in ("insufficient_scope", "What changes it", "bob", "admin_*", "mcp:admin"):
            assert each in said
        for junk in ("", "x", "0-0", "%2B", "1-1-1", "9" * 400):
            assert (await operator.get(f"/refusals/explain?id={junk}")).status_code == 404
            assert is_console(await operator.get(f"/refusals?after={junk}"))

    play(scene, with_console)


def test_hostile_records_are_text(play: Play) -> None:
    """A tool's name in a record, or a record that somebody forged, runs nothing."""

    async def scene(found: FrontDoorStage) -> None:
        await write(found, 1, tool=HOSTILE, server=HOSTILE, account=HOSTILE, reason=HOSTILE)
        operator = Operator(found)
        await operator.log_in()
        page = await operator.get("/refusals")
        link = page.text.partition("/refusals/explain?id=")[2].partition('"')[0]
        for each in (page, await operator.get(f"/refusals/explain?id={link}")):
            assert is_console(each)
            assert each.text.count("<script") == 1
            assert "&lt;script&gt;" in each.text

    play(scene, with_console)


def test_the_rules_in_force_are_shown_by_server_and_pattern(play: Play) -> None:
    """Each rule says what it asks, in words, and where authz.yaml has it."""

    async def scene(found: FrontDoorStage) -> None:
        operator = Operator(found)
        await operator.log_in()
        said = words(await operator.get("/rules"))
        for each in ("files", "notes", "admin_*", "one-time code", "servers.files.tools.admin_*"):
            assert each in said
        searched = words(await operator.get("/rules?q=read_"))
        assert "read_*" in searched
        assert "admin_*" not in searched

    play(scene, with_console)
