"""A response goes through the filter part by part: what is not understood ends it with an error."""

import asyncio
import io
import json
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import CALLER, LIST, REQUEST_ID, RPC_ID, SERVER_NAME
from authz.core.caller import write_caller
from authz.core.catalogue import ToolDefinition, parse_definition
from authz.core.decision import RESUMED
from authz.core.ledger import LedgerAnswer, Mode, Query, Taken
from authz.core.listing import Definition, ListError, ListFault
from authz.core.policy import Rule
from authz.envoy.pb import external_processor_pb2 as wire
from authz.ledger.deadline import Deadline
from authz.server import list_filter
from authz.server.check import Snapshot
from authz.server.list_filter import ListFilter, Observer
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import KeepOptions, Span, Tracer
from tests.server.test_check import FakeVerifier
from tests.support.examples import examples
from tests.support.values import policy, principal, server

TOLD = {
    LIST: "tools/list",
    SERVER_NAME: "files",
    CALLER: write_caller(principal()),
    RPC_ID: "7",
    REQUEST_ID: "2f1f",
}
FILES = server(tools={"read_*": Rule()})
RULES = replace(
    policy(FILES, max_list=100_000),
    servers={each.name: each for each in (FILES, replace(FILES, name="notes"))},
)
UNHURRIED = examples(40)


class NoLedger:
    """A ledger that nobody asks."""

    async def take(self, query: Query) -> LedgerAnswer:
        return Taken((), Mode.REDIS)


class ListWorld:
    """The filter, and what it said."""

    def __init__(self) -> None:
        self.log = io.StringIO()
        self.metrics = Metrics()
        recorder = Recorder(self.metrics, EventLog("json", self.log))
        snapshot = Snapshot(RULES, FakeVerifier(lambda _: principal()), NoLedger(), Deadline(1.0))
        self.observed: list[ToolDefinition] = []
        self.filter = ListFilter(lambda: snapshot, recorder, lambda: self.observer)
        self.observer: Observer = self
        self.read_by = list[int]()
        self.seen_by = list[int]()

    def read(self, server: str, definitions: tuple[Definition, ...]) -> tuple[ToolDefinition, ...]:
        assert server == "files"
        self.read_by.append(threading.get_ident())
        return tuple(parse_definition(each.raw) for each in definitions)

    def see(self, server: str, definitions: tuple[ToolDefinition, ...]) -> None:
        assert server == "files"
        self.seen_by.append(threading.get_ident())
        self.observed += definitions

    def run(self, *parts: bytes) -> bytes:
        """Return what the client gets of the body; raise where the response ends with an error."""

        async def answers() -> bytes:
            response, found = self.filter.open(), b""
            try:
                for part in parts:
                    answer = wire.ProcessingResponse.FromString(await response.answer(part))
                    if answer.WhichOneof("response") == "response_body":
                        mutation = answer.response_body.response.body_mutation
                        unchanged = mutation.WhichOneof("mutation") is None
                        sent = wire.ProcessingRequest.FromString(part).response_body.body
                        found += sent if unchanged else mutation.body
                return found
            finally:
                response.close()
                assert self.filter.held == 0

        return asyncio.run(answers())


@pytest.fixture
def world() -> ListWorld:
    return ListWorld()


def head(
    media: str = "application/json",
    *,
    ended: bool = False,
    status: str = "200",
    told: str = "tools/list",
    server: str = "files",
    **more: str,
) -> bytes:
    message = wire.ProcessingRequest()
    message.response_headers.end_of_stream = ended
    headers = {":status": status, "content-type": media} | more
    for name, value in headers.items():
        line = message.response_headers.headers.headers.add()
        line.key, line.raw_value = name.replace("_", "-"), value.encode()
    fields = message.metadata_context.filter_metadata["envoy.filters.http.ext_authz"].fields
    for name, value in (TOLD | {LIST: told, SERVER_NAME: server}).items():
        if told != RESUMED or name != RPC_ID:
            fields[name].string_value = value
    return message.SerializeToString()


def chunk(data: bytes, *, ended: bool = False) -> bytes:
    body = wire.HttpBody(body=data, end_of_stream=ended)
    return wire.ProcessingRequest(response_body=body).SerializeToString()


def listed(*names: str) -> bytes:
    result = {"tools": [{"name": name} for name in names]}
    return json.dumps({"jsonrpc": "2.0", "id": 7, "result": result}).encode()


@UNHURRIED
@given(
    data=st.data(),
    names=st.lists(st.sampled_from(["read_a", "other"]), max_size=5),
    ends=st.sampled_from([b"\n", b"\r\n"]),
)
def test_chunks_make_no_difference(data: st.DataObject, names: list[str], ends: bytes) -> None:
    """However a body is divided, the client gets the same, without what is hidden."""
    kept = [name for name in names if name == "read_a"]
    document = listed(*names)
    stream = ends.join([b": x", b"data: " + document, b"", b"id: 2", b"data:", b"", b""])
    for media, sent in (("application/json", document), ("text/event-stream", stream)):
        places = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
        pieces = [sent[a:b] for a, b in zip([0, *places], [*places, len(sent)], strict=True)]
        parts = [chunk(each) for each in pieces] + [chunk(b"", ended=True)]
        found = ListWorld().run(head(media), *parts)
        if kept == names:
            assert found == sent
        expected = json.loads(listed(*kept))
        start = found.index(b"{")
        assert json.JSONDecoder().raw_decode(found[start:].decode())[0] == expected
        if media == "text/event-stream":
            assert found.startswith(b": x" + ends)
            assert found.endswith(ends.join([b"id: 2", b"data:", b"", b""]))


@pytest.mark.attack("list-unfiltered")
@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\xc2\xa0", b"/**/", b")]}',", b"\0"])
def test_an_event_is_read_whatever_it_begins_with(world: ListWorld, before: bytes) -> None:
    """Clients that drop what stands before an object get an error in place of the list."""
    event = b"data: " + before + listed("read_a", "other") + b"\n\n"
    found = world.run(head("text/event-stream"), chunk(event, ended=True))
    assert b"other" not in found
    assert json.loads(found.removeprefix(b"data: "))["error"]["data"]["reason"] == "list_not_shown"


@pytest.mark.attack("list-unfiltered")
@pytest.mark.parametrize(
    "event",
    [
        b'id: 1\n\xef\xbb\xbfdata: {"a":\ndata: FULL\n\xef\xbb\xbfdata: }\n\n',
        b'\xef\xbb\xbfdata: {"a":\ndata: FULL\ndata: }\n\n',
        b"data: \rFULL\n\n",
        b"data: x\rdata: FULL\n\n",
        b": x\xe2\x80\xa8data: FULL\xe2\x80\xa8\xe2\x80\xa8\n\n",
        b": x\x0bdata: FULL\x0b\x0b\n\n",
    ],
)
def test_an_event_that_clients_read_differently_is_an_error(world: ListWorld, event: bytes) -> None:
    """Byte order marks, a CR alone, and other ends of lines: nothing of such an event is left."""
    sent = event.replace(b"FULL", listed("read_a", "other"))
    found = world.run(head("text/event-stream"), chunk(sent, ended=True))
    assert b"other" not in found
    for each in found.removesuffix(b"\n\n").split(b"\n\n"):
        said = json.loads(each.removeprefix(b"data: "))
        assert said["error"]["data"]["reason"] == "list_not_shown"


def test_an_event_that_holds_no_object_passes(world: ListWorld) -> None:
    """The first event of a stream that can be resumed has no data, or blanks; others have words."""
    sent = b": ping\n\nid: 1\ndata:\n\nid: 2\ndata:  \t\n\nevent: ping\ndata: 12:00\n\n"
    assert world.run(head("text/event-stream"), chunk(sent, ended=True)) == sent


def test_definitions_of_a_long_list_are_read_in_a_thread(world: ListWorld) -> None:
    """Nobody's check waits for it; notice is taken on the event loop."""
    world.run(head(), chunk(listed(*(f"read_{number:0200}" for number in range(200))), ended=True))
    assert world.read_by != [threading.get_ident()]
    assert world.seen_by == [threading.get_ident()]


def test_who_observes_since_a_reload_is_told_of_it(world: ListWorld) -> None:
    """A list that was read for the configuration before counts in the one after."""

    class Before:
        def read(self, *_: object) -> tuple[ToolDefinition, ...]:
            world.observer = world
            return ()

        def see(self, *_: object) -> None:
            raise AssertionError

    world.observer = Before()
    world.run(head(), chunk(listed("read_a"), ended=True))
    assert [each.name for each in world.observed] == ["read_a"]


def test_who_observes_sees_all_of_it(world: ListWorld) -> None:
    """What is hidden from one caller is told to who keeps the catalogue, long lists too."""
    names = [f"{kind}_{number:0200}" for number in range(100) for kind in ("read", "other")]
    found = json.loads(world.run(head(), chunk(listed(*names), ended=True)))
    assert [each.name for each in world.observed] == names
    assert [each["name"] for each in found["result"]["tools"]] == names[::2]


@pytest.mark.attack("list-unfiltered")
@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([chunk(b"{}")], ListFault.INTERNAL),
        ([head(), head()], ListFault.INTERNAL),
        ([head(ended=True), chunk(listed("other"))], ListFault.INTERNAL),
        ([b"\xff"], ListFault.INTERNAL),
        ([b""], ListFault.INTERNAL),
        ([head("text/plain")], ListFault.MEDIA_TYPE),
        ([head("")], ListFault.MEDIA_TYPE),
        ([head("application/jsonx")], ListFault.MEDIA_TYPE),
        ([head("text/plain", status="203")], ListFault.MEDIA_TYPE),
        ([head(content_encoding="gzip")], ListFault.ENCODING),
        ([head("text/event-stream", content_encoding="br")], ListFault.ENCODING),
        ([head("text/event-stream; charset=utf-7")], ListFault.ENCODING),
        ([head("text/event-stream;CHARSET=unicode_escape")], ListFault.ENCODING),
        ([head("text/event-stream; charset=utf-8; charset=utf-16le")], ListFault.ENCODING),
        ([head("text/event-stream; charset*=us-ascii''utf-7")], ListFault.ENCODING),
        ([head('application/json; x="; charset=hz-gb-2312"')], ListFault.ENCODING),
        ([head("application/json,text/plain", status="400")], ListFault.MEDIA_TYPE),
        ([head("application/json-seq", status="404")], ListFault.MEDIA_TYPE),
        ([head("text/plain,text/event-stream", status="500")], ListFault.MEDIA_TYPE),
        ([head(content_length="100001")], ListFault.TOO_LARGE),
        ([head(content_length="9" * 5000)], ListFault.TOO_LARGE),
        ([head(content_length="1,1")], ListFault.TOO_LARGE),
        ([head(told="tools/call")], ListFault.UNKNOWN_CALLER),
        ([head(told="")], ListFault.UNKNOWN_CALLER),
        ([head("text/event-stream", told=RESUMED), chunk(b"data: {\n\n")], ListFault.UNREADABLE),
        ([head("text/event-stream"), chunk(b"x" * 100_001)], ListFault.TOO_LARGE),
    ],
)
def test_what_is_not_understood_ends_with_an_error(
    world: ListWorld, parts: list[bytes], fault: ListFault
) -> None:
    """It is counted and logged once, and nothing follows."""
    with pytest.raises(ListError) as caught:
        world.run(*parts)
    assert caught.value.fault is fault
    (line,) = world.log.getvalue().splitlines()
    assert json.loads(line)["fault"] == fault.value


def test_after_an_error_nothing_follows(world: ListWorld) -> None:
    """A transport that asks on gets an error again."""

    async def asked() -> None:
        response = world.filter.open()
        for part in (head("text/html"), head(), chunk(listed("other"), ended=True)):
            with pytest.raises(ListError):
                await response.answer(part)

    asyncio.run(asked())


def test_a_document_is_bounded_and_so_are_all_together(
    world: ListWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond either bound the request gets an error in place of the list, and nothing after it."""
    long = [chunk(b" " * 50_000) for _ in range(3)] + [chunk(listed("other"), ended=True)]
    answer = json.loads(world.run(head(), *long))
    assert (answer["id"], answer["error"]["data"]["reason"]) == (7, "list_not_shown")
    monkeypatch.setattr(list_filter, "MAX_HELD", 10)
    with pytest.raises(ListError) as caught:
        world.run(head(), chunk(b"{" * 11))
    assert caught.value.fault is ListFault.OVERLOAD


@pytest.mark.attack("list-unfiltered")
def test_an_event_that_does_not_end_is_filtered(world: ListWorld) -> None:
    """Some clients read what stands at the end of a stream as an event."""
    sent = [chunk(b"data: {}\n\ndata: " + listed("read_a", "other")), chunk(b"", ended=True)]
    assert world.run(head("text/event-stream"), *sent) == b"data: {}\n\ndata: " + listed("read_a")


@pytest.mark.parametrize(
    "media",
    [
        "application/json; charset=utf-8",
        "application/json;charset=UTF8",
        'application/json; charset="utf-8";',
        "application/json; profile=x",
    ],
)
def test_a_list_may_say_that_it_is_utf8(world: ListWorld, media: str) -> None:
    """As many servers do, with the spellings of it that nobody misreads."""
    assert world.run(head(media), chunk(listed("other"), ended=True)) == listed()


@pytest.mark.attack("list-unfiltered")
@pytest.mark.parametrize(
    "parameters", ["charset=utf-8" + " " * 60_000 + "x", "x" + ";" * 60_000 + "charset=utf-8"]
)
def test_a_long_type_costs_no_time(world: ListWorld, parameters: str) -> None:
    """It is refused at a glance: no pattern looks at sixty thousand blanks from each of them."""
    with pytest.raises(ListError):
        world.run(head(f"application/json; {parameters}"), chunk(listed("other"), ended=True))


@pytest.mark.attack("list-unfiltered")
def test_what_clients_decode_otherwise_does_not_pass(world: ListWorld) -> None:
    """Both official Python SDKs decode events by the charset: these bytes are a list to them."""
    event = b"+AGQ-ata: " + listed("read_a", "other") + b"\n\n"
    assert event.decode("utf-7").startswith('data: {"jsonrpc"')
    with pytest.raises(ListError):
        world.run(head("text/event-stream; charset=utf-7"), chunk(event, ended=True))


@pytest.mark.attack("list-of-another-person")
@pytest.mark.parametrize("media", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("names", [(), ("other",)])
def test_a_filtered_list_is_for_no_shared_cache(
    world: ListWorld, media: str, names: tuple[str, ...]
) -> None:
    """A list is its reader's, also where nothing was hidden: `public` would show it to others."""
    message = listed("read_a", *names)[:-2] + b', "cacheScope": "public", "ttlMs": 9}}'
    sent = message if media == "application/json" else b"data: " + message + b"\n\n"
    found = world.run(head(media), chunk(sent, ended=True)).removeprefix(b"data: ")
    result = json.loads(found)["result"]
    assert result == {"tools": [{"name": "read_a"}], "cacheScope": "private", "ttlMs": 9}


@pytest.mark.attack("huge-tool-list")
def test_a_server_that_never_ends_its_lists_stops_no_other(
    world: ListWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server holds a part of the memory at most, and gets it back."""
    monkeypatch.setattr(list_filter, "MAX_HELD_OF_SERVER", 100)

    async def asked() -> None:
        first, second, third = (world.filter.open() for _ in range(3))
        for response in (first, second):
            await response.answer(head())
        await first.answer(chunk(b"{" * 60))
        with pytest.raises(ListError) as caught:
            await second.answer(chunk(b"{" * 60))
        assert caught.value.fault is ListFault.OVERLOAD
        second.close()
        await third.answer(head(server="notes"))
        await third.answer(chunk(b"{" * 60))
        first.close()
        third.close()
        assert not world.filter.held_of

    asyncio.run(asked())


@pytest.mark.attack("huge-tool-list")
def test_a_long_list_of_one_server_does_not_wait_for_anothers(world: ListWorld) -> None:
    """They are read in threads of their own; lists of one server one after the other."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def read(self, server: str, _: object) -> tuple[ToolDefinition, ...]:
            if server == "files":
                begun.set()
                assert go_on.wait(30)
            return ()

        def see(self, *_: object) -> None:
            pass

    world.observer = Slow()
    long = chunk(listed(*(f"read_{number:0200}" for number in range(200))), ended=True)

    async def asked() -> None:
        slow, other = world.filter.open(), world.filter.open()
        await slow.answer(head())
        await other.answer(head(server="notes"))
        first = asyncio.create_task(slow.answer(long))
        await asyncio.to_thread(begun.wait, 30)
        await other.answer(long)
        assert not first.done()
        go_on.set()
        await first

    asyncio.run(asked())


@pytest.mark.parametrize("status", ["400", "404", "503"])
def test_a_refusal_in_plain_text_passes(world: ListWorld, status: str) -> None:
    """Clients of 2025-11-25 begin a new session at a 404; its text is no list."""
    sent = [chunk(b"Session "), chunk(b"not found", ended=True)]
    assert world.run(head("text/plain", status=status), *sent) == b"Session not found"


def test_the_length_is_told_where_nothing_changes(world: ListWorld) -> None:
    """A response that may change loses its Content-Length; Envoy would cut it or wait."""

    async def removed(part: bytes) -> list[str]:
        answer = wire.ProcessingResponse.FromString(await world.filter.open().answer(part))
        return list(answer.response_headers.response.header_mutation.remove_headers)

    assert asyncio.run(removed(head())) == ["content-length"]
    assert asyncio.run(removed(head(ended=True))) == []


_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("body", "error", "kept"),
    [(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}', "", "parent"),
     (b"{", "unreadable", "parent")],
)  # fmt: skip
def test_a_list_has_a_span_under_envoys_own(
    world: ListWorld, body: bytes, error: str, kept: str
) -> None:
    """It says which server's list of which kind, and what was wrong; nothing of what was listed."""
    traces = list[tuple[Span, ...]]()
    world.filter.recorder.tracer = Tracer(KeepOptions(sample=0.0), traces.append, lambda: None)

    async def answered() -> None:
        response = world.filter.open(_PARENT)
        await response.answer(head())
        await response.answer(chunk(body, ended=True))
        response.close()
        response.close()

    asyncio.run(answered())
    ((span,),) = traces
    said = dict(span.attributes)
    assert (span.name, span.error, said["authz.kept"]) == ("filter list", error, kept)
    assert (said["authz.server"], said["mcp.method.name"]) == ("files", "tools/list")
    assert span.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.parent_id == "00f067aa0ba902b7"
    assert set(said) <= {"authz.kept", "authz.server", "mcp.method.name", "authz.request_id"}
