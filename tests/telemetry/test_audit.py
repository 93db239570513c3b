"""The log: one line for each decision, without anything secret."""

import asyncio
import io
import json
import os
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Allow, Decision, Deny
from authz.core.ledger import Mode
from authz.core.limits import Quota
from authz.core.mcp import Message, MessageKind
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from authz.telemetry.audit import (
    EventLog,
    _writes,
    as_colour,
    as_json,
    as_line,
    as_text,
    describe,
)
from tests.support.values import LIMIT, principal, request, server, visitor

SECRET = "eyJhbGciOiJSUzI1NiJ9.secret.signature"


def an_allow() -> Allow:
    message = Message(MessageKind.REQUEST, "tools/call", 1, "read_file", None)
    return Allow(server(), message, principal(), (), Mode.LOCAL)


def test_an_allow_is_told_with_who_and_what() -> None:
    """The line names the server, the tool, the person, the client and who counted."""
    sent = request(b'{"secret-argument": 1}', path="/files?secret=1", authorization=SECRET)
    fields = describe(an_allow(), sent, 0.0012345)

    assert fields == {
        "event": "decision",
        "verdict": "allow",
        "reason": "allowed",
        "request_id": sent.request_id,
        "server": "files",
        "http_method": "POST",
        "mcp_method": "tools/call",
        "tool": "read_file",
        "issuer": "https://auth.example.test",
        "subject": "52b134ec-d812-4022-82b4-9100df7e1418",
        "client_id": "claude",
        "address": "192.0.2.7",
        "limiter": "local",
        "ms": 1.234,
    }


def test_a_log_in_of_the_front_door_is_told_by_its_grant() -> None:
    """`authz revoke --grant` wants it; what the person is called is not told."""
    allow = Allow(server(), None, visitor(), (), Mode.LOCAL)
    fields = describe(allow, None, 0)

    assert fields["grant"] == "grant-1"
    assert "john" not in fields.values()


@pytest.mark.attack("nothing-secret-is-logged")
@pytest.mark.parametrize("form", [as_json, as_text, as_colour])
def test_no_token_query_or_argument_is_logged(form: object) -> None:
    """Tokens, queries, cookies and bodies are nowhere in a line, allowed or refused."""
    sent = request(
        b'{"secret-argument": 1}',
        path="/files?secret=1",
        authorization=f"Bearer {SECRET}",
        cookie="secret=1",
    )
    for decision in (an_allow(), Deny(Reason.TOKEN_INVALID, "words", server())):
        line = form(describe(decision, sent, 0), 0.0)  # type: ignore[operator]  # either form

        assert "secret" not in line


@given(st.text(), st.text(max_size=5))
def test_a_hostile_value_is_never_a_second_line(subject: str, tool: str) -> None:
    """Whatever a claim or a tool's name holds, a record is one line of bounded length."""
    message = Message(MessageKind.REQUEST, "tools/call", 1, tool, None)
    allow = Allow(server(), message, principal(subject=subject * 100), (), Mode.REDIS)
    fields = describe(allow, request(), 0)
    for line in (as_json(fields, 0.0), as_text(fields, 0.0), as_colour(fields, 0.0)):
        assert len(line.splitlines()) == 1
        assert line.isascii()
        assert len(line) < 8_000
    assert json.loads(as_json(fields, 0.0))["verdict"] == "allow"


WORDS = st.text(max_size=300)
# Those of a line that are rounded: the first and the last of its members.
NUMBERS = r'^{"time":[0-9.e+-]+|"ms":[0-9.e+-]+(?=(?:,"trace_id":"[0-9a-f]+")?}$)'


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Draw a decision with whatever texts a caller, an issuer or Redis chose."""
    message = draw(
        st.none()
        | st.builds(Message, st.just(MessageKind.REQUEST), WORDS, st.just(1), WORDS, st.none())
    )
    who = draw(
        st.none()
        | st.builds(principal, subject=st.none() | WORDS, client_id=WORDS, issuer=WORDS)
        | st.just(visitor())
    )
    if draw(st.booleans()) and who is not None:
        trial = Quota(replace(LIMIT, shadow=True), 0, 1, exceeded=draw(st.booleans()))
        near = Quota(replace(LIMIT, warn_at=draw(st.none() | st.just(100))), 0, 1)
        return Allow(server(), message, who, (trial, near), draw(st.sampled_from(Mode)))
    where = draw(st.none() | st.just(server()))
    return Deny(draw(st.sampled_from(Reason)), draw(WORDS), where, message, who)


@given(
    decisions(),
    st.none() | st.builds(request, address=WORDS),
    st.floats(0, 1e6),
    st.floats(0, 1e10),
    st.sampled_from(["", "0af7651916cd43dd8448eb211c80319c"]),
)
def test_the_quick_line_is_the_line(
    decision: Decision, sent: HttpRequest | None, seconds: float, now: float, trace_id: str
) -> None:
    """The line that is put together from parts made before says, word by word, what json does."""
    quick = as_line(decision, sent, seconds, now, trace_id=trace_id)
    line = as_json(describe(decision, sent, seconds, trace_id), now)

    assert re.sub(NUMBERS, "", quick) == re.sub(NUMBERS, "", line)
    assert list(json.loads(quick)) == list(json.loads(line))
    for name in ("time", "ms"):
        assert json.loads(quick)[name] == pytest.approx(json.loads(line)[name], abs=0.0011)


@pytest.mark.parametrize("form", ["json", "text"])
def test_every_line_is_copied_as_json(form: str) -> None:
    """Whatever the format of the stream, short or too long for a pipe; the same line, once."""
    stream, copied = io.StringIO(), list[str]()
    log = EventLog(form, stream, clock=lambda: 1.0)
    log.copy_to(copied.append)
    log.decision(Deny(Reason.TOKEN_MISSING, "", server()), request(), 0.001, trace_id="ab")
    log.write({"event": "long", **{f"name{number}": "x" * 300 for number in range(20)}})
    log.copy_to(None)
    log.write({"event": "not copied"})

    assert [json.loads(line)["event"] for line in copied] == ["decision", "long"]
    assert json.loads(copied[0])["trace_id"] == "ab"
    if form == "json":
        assert stream.getvalue().startswith("".join(copied))


def test_a_stream_that_is_gone_costs_a_line_and_nothing_else() -> None:
    """Logging never raises into a decision."""
    stream = io.StringIO()
    log = EventLog("json", stream, clock=lambda: 1.5)
    log.write({"event": "x"})

    assert json.loads(stream.getvalue()) == {"time": 1.5, "event": "x"}
    stream.close()
    log.write({"event": "y"})


@pytest.mark.attack("log-reader-stops")
def test_a_reader_that_stops_holds_up_nobody() -> None:
    """A full pipe costs lines, counted; when it is read again, lines are whole again."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as stream:
        log = EventLog("json", stream, clock=lambda: 0.0)
        while not log.lost:
            log.write({"event": "x" * 1000})
        lost = log.lost
        log.write({"event": "y"})
        assert log.lost == lost + 1

        os.set_blocking(reading, False)
        while reader.read(1 << 16):
            pass
        log.write({"event": "z"})
        log.write({"event": "again"})
        last = reader.read(1 << 16)

    assert last is not None
    assert json.loads(last.splitlines()[-1])["event"] == "again"


@pytest.mark.parametrize("value", ["é" * 300, "\x00" * 300, "😀" * 300, '"' * 300])
def test_a_line_fits_a_pipe_as_a_whole(value: str) -> None:
    """Workers share one pipe: no line of theirs is so long that another could fall into it."""
    message = Message(MessageKind.REQUEST, value, 1, value, None)
    who = principal(subject=value, client_id=value, issuer=value)
    written = io.StringIO()

    EventLog("json", written).decision(
        Allow(server(), message, who, (), Mode.REDIS), request(address=value), 0.0
    )

    assert len(written.getvalue().encode()) <= 4096
    assert json.loads(written.getvalue())["verdict"] == "allow"


def test_lines_of_one_turn_are_written_at_its_end() -> None:
    """In an event loop many lines are one write; none is longer than a pipe takes as a whole."""
    reading, writing = os.pipe()

    async def play(log: EventLog) -> None:
        for number in range(100):
            log.write({"event": "decision", "number": number})
        assert log._pending
        await asyncio.sleep(0)

    with os.fdopen(writing, "w", encoding="ascii") as stream:
        log = EventLog("json", stream)
        asyncio.run(play(log))
        assert (log.lost, len(log._pending)) == (0, 0)
    with os.fdopen(reading, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]

    assert [line["number"] for line in lines] == list(range(100))


def test_a_write_takes_whole_lines() -> None:
    """Another process may write between two writes, not between the parts of a line."""
    lines = [b"x" * length + b"\n" for length in (10, 4000, 80, 4095, 5000, 1, 1)]

    groups = list(_writes(lines))

    assert [line for group in groups for line in group] == lines
    assert all(len(b"".join(group)) <= 4096 or len(group) == 1 for group in groups)
