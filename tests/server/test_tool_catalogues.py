"""What servers list is known to every worker soon, and whatever goes wrong makes tools stricter."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from authz.config.load import Settings, read
from authz.config.model import ServerConfig
from authz.core.catalogue import (
    OVERLAP,
    STRICTEST,
    UNLISTED,
    Annotation,
    PinMode,
    Pins,
    PinState,
    ToolDefinition,
    parse_definition,
    pin_state,
    read_definition,
)
from authz.core.ledger import UnavailableError
from authz.core.listing import LISTS, Definition
from authz.core.policy import Policy
from authz.ledger.sightings import KEPT, MemorySightings, SightingIndex
from authz.server import tool_catalogues
from authz.server.assemble import Assembly
from authz.server.tool_catalogues import ASK_EVERY, MAX_SIGHTINGS, ToolCatalogues
from authz.server.tool_lists import ToolList, ToolListError
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

READS = {"readOnlyHint": True}
NOW = 1_800_000_000.0
CONFIG = """
issuer: {url: https://auth.example.test}
gateway: {url: https://mcp.example.test}
servers:
  files:
    upstream: http://files:8000/mcp
    annotations: {destructive: {groups: [staff]}}
  notes: {upstream: http://notes:8000/mcp}
"""


def tool(name: str = "tool", **members: object) -> ToolDefinition:
    return read_definition({"name": name, **members})


def listed(name: str | None, raw: bytes) -> Definition:
    return Definition(LISTS["tools/list"], name, raw)


class Worker:
    """One worker's catalogues, with a server that answers as told."""

    def __init__(
        self,
        store: MemorySightings | None = None,
        *,
        pins: Pins | None = None,
        before: "Worker | None" = None,
    ) -> None:
        self.at: float = NOW if before is None else before.at
        self.stream = io.StringIO()
        self.answer: ToolList | ToolListError = ToolListError("it cannot be reached")
        self.asked: list[str] = []
        self.metrics = Metrics()
        settings: Settings = read(CONFIG, "authz.yaml", {}, secrets=False)
        policy = settings.policy if pins is None else _with_pins(settings.policy, pins)
        self.policy = policy
        self.catalogues: ToolCatalogues = ToolCatalogues(
            settings.config,
            policy,
            store or MemorySightings(),
            Recorder(self.metrics, EventLog("json", self.stream)),
            before=None if before is None else before.catalogues,
            ask=self._ask,
            clock=lambda: self.at,
        )

    async def _ask(self, server: ServerConfig) -> ToolList:
        self.asked.append(server.upstream)
        if isinstance(self.answer, ToolListError):
            raise self.answer
        return self.answer

    def see(self, *definitions: ToolDefinition, server: str = "files") -> None:
        sent = [listed(each.name, each.text.encode()) for each in definitions]
        self.show([*sent, Definition(LISTS["prompts/list"], "tool", b"{}")], server)

    def show(self, sent: list[Definition], server: str = "files") -> None:
        self.catalogues.see(server, self.catalogues.read(server, sent))

    def annotations(self, name: str = "tool", server: str = "files") -> frozenset[Annotation]:
        return self.catalogues.catalogues[server].annotations(name)

    @property
    def events(self) -> list[dict[str, object]]:
        self.catalogues._recorder.log.flush()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def _with_pins(policy: Policy, pins: Pins) -> Policy:
    files = replace(policy.servers["files"], pins=pins)
    return replace(policy, servers={**policy.servers, "files": files})


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]  # a coroutine function


def test_what_one_worker_sees_the_others_know() -> None:
    """By the store, each server its own; and a worker that starts later, too."""

    async def work() -> None:
        store = MemorySightings()
        one, other = Worker(store), Worker(store)
        one.see(tool(annotations=READS))
        assert Annotation.READ_ONLY in one.annotations()
        assert other.annotations() == STRICTEST
        await one.catalogues.synchronize()
        await other.catalogues.synchronize()
        assert Annotation.READ_ONLY in other.annotations()
        assert other.annotations(server="notes") == STRICTEST
        other.see(tool())
        await other.catalogues.synchronize()
        await one.catalogues.synchronize()
        assert Annotation.READ_ONLY not in one.annotations()
        late = Worker(store)
        await late.catalogues.synchronize()
        assert Annotation.READ_ONLY not in late.annotations()

    run(work)


def test_a_reload_forgets_nothing() -> None:
    """The catalogues of a new configuration begin with what those before knew."""

    async def work() -> None:
        one = Worker()
        one.see(tool(annotations=READS))
        assert Annotation.READ_ONLY in Worker(before=one).annotations()

    run(work)


def test_the_same_list_again_is_the_same_catalogue() -> None:
    """What decisions have cached for it stays good."""

    async def work() -> None:
        one = Worker()
        one.see(tool())
        before = one.catalogues.catalogues["files"]
        one.at += 1
        one.see(tool())
        assert one.catalogues.catalogues["files"] is before

    run(work)


def test_while_the_store_is_away_what_was_seen_counts_and_is_written_later() -> None:
    """Nothing waits for Redis, and nothing is lost."""

    class Away(MemorySightings):
        away = True

        async def index(self) -> SightingIndex:
            if self.away:
                raise UnavailableError("redis")
            return await super().index()

        async def write(self, server: str, sightings: object) -> None:
            if self.away:
                raise UnavailableError("redis")
            await super().write(server, sightings)  # type: ignore[arg-type]

    async def work() -> None:
        store = Away()
        one, other = Worker(store), Worker(store)
        one.see(tool(annotations=READS))
        with pytest.raises(UnavailableError):
            await one.catalogues.synchronize()
        assert Annotation.READ_ONLY in one.annotations()
        store.away = False
        await one.catalogues.synchronize()
        await other.catalogues.synchronize()
        assert Annotation.READ_ONLY in other.annotations()

    run(work)


@pytest.mark.attack("huge-tool-list")
def test_a_server_that_lists_too_much_is_believed_nothing() -> None:
    """Memory is bounded, and no tool is looser for it: all of the server's are the strictest."""

    async def work() -> None:
        one = Worker()
        one.see(tool(annotations=READS))
        one.see(*(tool(f"tool-{n}", annotations=READS) for n in range(MAX_SIGHTINGS + 1)))
        assert one.catalogues.catalogues["files"] == UNLISTED
        one.see(tool(annotations=READS))
        assert one.annotations() == STRICTEST
        one.at += OVERLAP
        one.see(tool(annotations=READS))
        assert Annotation.READ_ONLY in one.annotations()
        assert [each["event"] for each in one.events].count("tools_too_many") == 1

    run(work)


def test_many_old_definitions_push_out_no_new_ones() -> None:
    """A server that changes its words all the time is known by its last ones."""

    async def work() -> None:
        one = Worker()
        for n in range(MAX_SIGHTINGS + 10):
            one.at += OVERLAP + 1
            one.see(tool(description=str(n)))
        last = tool(description=str(MAX_SIGHTINGS + 9))
        assert one.catalogues.catalogues["files"].tools["tool"].digests == {last.digest}

    run(work)


@pytest.mark.attack("huge-tool-list")
def test_a_tool_that_counts_fills_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that always says something else, as much is kept as counts, everywhere."""
    monkeypatch.setattr(tool_catalogues, "MAX_SIGHTINGS", 40)

    async def work() -> None:
        store = MemorySightings()
        one, other = Worker(store), Worker(store)
        for number in range(200):
            one.at = other.at = NOW + number * OVERLAP // 10
            one.see(tool(description=str(number)))
            await one.catalogues.synchronize()
            await other.catalogues.synchronize()
            assert len(await store.read("files")) <= 21
        assert other.catalogues.catalogues == one.catalogues.catalogues
        assert len(one.catalogues.catalogues["files"].tools["tool"].digests) == 11
        for each in (one, other):
            assert len(each.catalogues._written["files"]) <= 21
            assert not each.catalogues._unsaved["files"]

    run(work)


@pytest.mark.attack("huge-tool-list")
def test_what_was_too_much_is_forgotten_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """First every worker learns that it was too much; once the server lists less, it is believed,
    and what it listed is gone.
    """
    monkeypatch.setattr(tool_catalogues, "MAX_SIGHTINGS", 40)

    async def work() -> None:
        store = MemorySightings()
        one, other = Worker(store), Worker(store)
        for number in range(2):
            for worker in (one, other):
                some = range(number * 11, number * 11 + 11)
                worker.see(*(tool(f"{worker is one}-{n}", annotations=READS) for n in some))
            for worker in (one, other):
                await worker.catalogues.synchronize()
        await one.catalogues.synchronize()
        late = Worker(store)
        await late.catalogues.synchronize()
        for worker in (one, other, late):
            assert worker.catalogues.catalogues["files"] == UNLISTED
            assert not worker.catalogues._written["files"]
        assert len(await store.read("files")) > 40
        for worker in (one, other, late):
            worker.at += OVERLAP
        one.see(tool(annotations=READS))
        for _ in range(2):
            for worker in (one, other, late):
                await worker.catalogues.synchronize()
        for worker in (one, other, late):
            assert Annotation.READ_ONLY in worker.annotations()
        assert [each.definition.name for each in await store.read("files")] == ["tool"]

    run(work)


def test_what_another_worker_forgot_as_it_was_written_is_written_again() -> None:
    """It had read the store before: what was seen lately counts for every worker all the same."""

    async def work() -> None:
        store = MemorySightings()
        one, other = Worker(store), Worker(store)
        seen = tool(description="changed")
        one.see(seen)
        await one.catalogues.synchronize()
        await store.forget("files", [seen.digest])
        other.see(tool("more"))
        await other.catalogues.synchronize()
        for _ in range(2):
            await one.catalogues.synchronize()
        assert seen.digest in {each.definition.digest for each in await store.read("files")}

    run(work)


def test_while_the_store_is_away_no_more_waits_than_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What counts no more is not written later."""
    monkeypatch.setattr(tool_catalogues, "MAX_SIGHTINGS", 40)
    one = Worker()
    for number in range(200):
        one.at = NOW + number * OVERLAP // 10
        one.see(tool(description=str(number)))
    assert len(one.catalogues._unsaved["files"]) <= 21


def test_what_no_rule_looks_at_is_not_read() -> None:
    """A server without annotations and pins costs nothing."""
    one = Worker()
    one.see(tool(), server="notes")
    assert one.catalogues.sightings("notes") == {}
    assert one.catalogues.read("notes", [listed("tool", b'{"name": "tool"}')]) == ()


def test_a_definition_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists come often, and change seldom; what is remembered is bounded."""
    parsed = list[bytes]()

    def parse(data: bytes) -> ToolDefinition:
        parsed.append(data)
        return parse_definition(data)

    monkeypatch.setattr(tool_catalogues, "parse_definition", parse)
    monkeypatch.setattr(tool_catalogues, "MAX_REMEMBERED", 10)
    one = Worker()
    many = [tool(f"tool-{number}", description="d" * number) for number in range(10)]
    for _ in range(3):
        one.see(*many)
    assert len(parsed) == 10
    one.at += OVERLAP + 1
    one.see(tool("tool-0", annotations=READS), *many[1:])  # its new words count at once
    assert Annotation.READ_ONLY in one.annotations("tool-0")
    for number in range(50):
        one.see(tool(f"tool-{number}", description="e"))
    assert len(one.catalogues._readings._found) == 10
    texts = [each.text for each in one.catalogues._readings._found.values()]
    assert one.catalogues._readings._length == sum(map(len, texts))
    monkeypatch.setattr(tool_catalogues, "MAX_TEXT", 1)
    one.see(tool("last"))
    assert not one.catalogues._readings._found


def test_a_catalogue_that_is_late_fails_no_decision() -> None:
    """It has a connection of its own: whoever waits for one fails with the call before."""

    async def work() -> None:
        settings = read(CONFIG + "redis: {url: 'redis://127.0.0.1:1'}", "authz.yaml", {})
        recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
        assembly = Assembly(settings, {}, recorder)
        with pytest.raises(UnavailableError):
            await assembly.tools.synchronize()
        ledger = assembly.counting._remote
        assert ledger is not None
        assert ledger._lost_calls == 0
        await assembly.aclose()

    run(work)


@pytest.mark.parametrize(
    ("change", "filters"),
    [
        ("", True),
        ("service: {data_plane: envoy_gateway, match: by_url}\n", False),
        ("service: {data_plane: agentgateway, match: by_url}\n", False),
    ],
)
def test_lists_are_taken_from_our_own_envoy_alone(change: str, filters: bool) -> None:
    """Of another data plane, and where nothing is filtered, nobody has any to send."""
    assert read(CONFIG + change, "authz.yaml", {}, secrets=False).filters_lists is filters
    off = CONFIG.replace("files:\n", "files:\n    filter_lists: false\n", 1) + change
    assert not read(off, "authz.yaml", {}, secrets=False).filters_lists


def test_what_is_not_seen_for_a_day_is_forgotten() -> None:
    """Here and in the store."""

    async def work() -> None:
        store = MemorySightings()
        one = Worker(store)
        one.see(tool(annotations=READS))
        await one.catalogues.synchronize()
        one.at += KEPT + 1
        one.see(tool("other"))
        await one.catalogues.synchronize()
        assert one.annotations() == STRICTEST
        assert [each.definition.name for each in await store.read("files")] == ["other"]

    run(work)


@pytest.mark.attack("tool-definition-shape")
@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"name": "other"}',
        b'{"name": "tool", "annotations": {}, "annotations": {}}',
        b'{"name": "tool", "description": "' + b"a" * 200_000 + b'"}',
    ],
)
def test_a_definition_that_cannot_be_read_has_changed(data: bytes) -> None:
    """It is no way to keep the approval of the one before."""

    async def work() -> None:
        approved = tool(annotations=READS)
        one = Worker(pins=Pins(PinMode.ENFORCE, {"tool": approved.digest}))
        one.see(approved)
        sent = [listed("tool", data), listed(None, b"5"), listed("", b"{}")]
        one.show(sent)
        assert Annotation.DESTRUCTIVE in one.annotations()
        catalogue = one.catalogues.catalogues["files"]
        pins = Pins(PinMode.ENFORCE, {"tool": approved.digest})
        assert pin_state(pins, catalogue, "tool") is PinState.CHANGED

    run(work)


def test_changes_are_told_once() -> None:
    """A new tool, a changed text, changed annotations; what is not approved; each as an event and
    in the metric.
    """

    async def work() -> None:
        approved = tool(annotations=READS)
        one = Worker(pins=Pins(PinMode.REPORT, {"tool": approved.digest}))
        for _ in range(2):
            one.see(approved)
        for _ in range(2):
            one.see(tool(annotations=READS, description="\x1b[8m"), tool("new"))
        one.see(tool())
        events = [each for each in one.events if each["event"] != "security"]
        told = [(e["event"], e["tool"], e.get("change") or e["state"]) for e in events]
        assert told == [
            ("tool_listed_anew", "tool", "definition"),
            ("tool_listed_anew", "new", "added"),
            ("tool_not_approved", "tool", "changed"),
            ("tool_not_approved", "new", "not_approved"),
            ("tool_listed_anew", "tool", "annotations"),
        ]
        assert one.metrics.tool_changes.labels("files", "changed")._value.get() == 1

    run(work)


def test_a_server_is_asked_by_one_worker_now_and_then() -> None:
    """A fresh start needs nobody: the server is asked until it answers, then once a minute."""

    async def work() -> None:
        store = MemorySightings()
        one, other = Worker(store), Worker(store)
        assert not await one.catalogues.ask("files")
        assert one.annotations() == STRICTEST
        one.answer = ToolList((tool(annotations=READS),))
        assert await one.catalogues.ask("files")
        assert Annotation.READ_ONLY in one.annotations()
        assert [each.get("fault") for each in one.events if each["event"] == "tools_list"] == [
            "it cannot be reached",
            "",
        ]
        await one.catalogues.synchronize()
        await other.catalogues.synchronize()
        assert not other.catalogues.is_due("files")
        other.at += ASK_EVERY
        assert other.catalogues.is_due("files")
        other.at -= 10 * ASK_EVERY  # a clock that stepped back
        assert other.catalogues.is_due("files")

    run(work)


def test_the_background_asks_and_shares() -> None:
    """Only servers whose rules need it are asked."""

    async def work() -> None:
        store = MemorySightings()
        one, other = Worker(store), Worker(store)
        one.answer = ToolList((tool(annotations=READS),))
        one.catalogues.start()
        async with asyncio.timeout(30):
            while not await store.read("files"):  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0)
        await one.catalogues.aclose()
        await other.catalogues.synchronize()
        assert Annotation.READ_ONLY in other.annotations()
        assert set(one.asked) == {"http://files:8000/mcp"}

    run(work)
