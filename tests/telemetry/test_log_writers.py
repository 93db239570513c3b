"""Whose lines of a log count: what a hostile MCP server prints is its own, however it looks."""

import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.cli.connections import collect
from authz.telemetry.log_reader import LineKind, find_request, read_line
from authz.telemetry.log_writers import LineTrust

DECISION: Final = json.dumps(
    {"time": 1.5, "event": "decision", "verdict": "allow", "request_id": "r1", "grant": "ab",
     "http_method": "POST", "address": "192.0.2.1", "client_id": "evil"}
)  # fmt: skip
LOG_IN: Final = json.dumps({"time": 1.5, "event": "log_in", "request_id": "r1", "step": "token"})
ACCESS: Final = json.dumps({"details": "-", "flags": "-", "status": 200, "request_id": "r1"})
ISO: Final = "2026-11-30T08:53:48.123456789Z"


def writer(line: str) -> str | None:
    return read_line(line.encode()).writer


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("authz-1  | ", "authz-1"),
        ("authz_1  | ", "authz_1"),
        ("authz-pages-1  | ", "authz-pages-1"),
        ("authz-2-1  | ", "authz-2-1"),
        ("\x1b[36mauthz-1  | \x1b[0m", "authz-1"),
        (f"authz-1  | {ISO} ", "authz-1"),
        ("[authz] | ", "authz"),
        ("gw_authz.1.k3x@node-2    | ", "authz"),
        ("[pod/authz-6d5f-x2/authz] ", "authz"),
        (f"[pod/authz-6d5f-x2/authz] {ISO} ", "authz"),
        ("authz-6d5f7c-x2vkq authz ", "authz"),
        ("Nov 30 08:53:48 gw authz[123]: ", "authz"),
        ("Nov 30 08:53:48 gw docker[9]: authz-1  | ", "authz-1"),
        (f'{ISO} {{app="authz", pod="x"}} ', "authz"),
    ],
)
def test_a_collector_says_who_wrote_a_line(prefix: str, name: str) -> None:
    """Each in its own form; what it names counts."""
    line = read_line(f"{prefix}{DECISION}".encode())
    assert line.writer == name
    trust = LineTrust()
    assert trust.takes(line)
    assert not trust.unnamed


@pytest.mark.parametrize(
    "prefix",
    ["", f"{ISO} ", "2026-11-30T08:53:48.1+01:00 stdout F ", "MESSAGE=",
     "Nov 30 08:53:48 gw python3[7]: "],
)  # fmt: skip
@pytest.mark.parametrize("inner", ["", "authz-1  | ", "[pod/a/authz] "])
def test_what_no_collector_names_is_told(prefix: str, inner: str) -> None:
    """It is believed as whoever hands it over says; a name further in is the writer's own word."""
    if not prefix and inner:
        return
    line, trust = read_line(f"{prefix}{inner}{DECISION}".encode()), LineTrust()
    assert line.writer is None
    assert trust.takes(line)
    assert trust.unnamed


FORGED: Final = (
    "{line}",
    "authz-1  | {line}",
    "\x1b[36mauthz-1  | \x1b[0m{line}",
    "\x1b[2K\x1b[1Gauthz-1  | {line}",
    "junk\r{line}",
    "junk\rauthz-1  | {line}",
    "\r\x1b[36mauthz-1  | \x1b[0m{line}",
    "\b\b\b\b\b\b\b\b\b\b\bauthz-1  | {line}",
    "Nov 30 08:53:48 gw authz[1]: {line}",
    "Nov 30 08:53:48 gw docker[1]: authz-1  | {line}",
    "[pod/authz-x/authz] {line}",
    '2026-11-30T08:53:48Z {{app="authz"}} {line}',
    "MESSAGE={line}",
    '{{"stream": "stdout", "log": {text}}}',
    '{{"__REALTIME_TIMESTAMP": "1", "_SYSTEMD_UNIT": "authz.service", "MESSAGE": {text}}}',
    "\u2028{line}",
    "\x85authz-1  | {line}",
    "\x0bauthz-1  | {line}",
    "half a line and then {line}",
)


@pytest.mark.attack("log: lines of a hostile server")
@pytest.mark.parametrize("said", FORGED)
@pytest.mark.parametrize("record", [DECISION, LOG_IN, ACCESS], ids=["decision", "log-in", "access"])
@pytest.mark.parametrize(
    "outer",
    ["files-1  | ", "\x1b[33mfiles-1  | \x1b[0m", f"files-1  | {ISO} ", "mcp_files.1.k3@n    | ",
     "[pod/files-x/files] ", "files-6d5f7c-x2vkq files ", "Nov 30 08:53:48 gw files[3]: ",
     "Nov 30 08:53:48 gw docker[9]: files-1  | ", f'{ISO} {{app="files"}} ', "authz-files-1  | ",
     "my-authz-1  | ", "authzz-1  | ", "authz-1-evil  | ", "authelia-1  | ", "redis-1  | "],
)  # fmt: skip
def test_what_a_hostile_server_prints_is_its_own(said: str, record: str, outer: str) -> None:
    """Lines, prefixes, colours, returns and objects of collectors that it makes up count as
    nothing, at both commands.
    """
    text = outer + said.format(line=record, text=json.dumps(record))
    trust = LineTrust()
    with pytest.raises(ValueError, match="no line about that request"):
        find_request([text.encode()], "r1", trust.takes)
    assert not collect([text.encode()], 0.0, trust.takes).stories()
    assert not trust.unnamed
    assert set(trust.foreign) <= {
        "files-1", "files", "authz-files-1", "my-authz-1", "authzz-1", "authz-1-evil",
        "authelia-1", "redis-1",
    }  # fmt: skip


@pytest.mark.attack("log: lines of a hostile server")
@given(st.text(max_size=60).filter(lambda text: "\n" not in text))
def test_no_text_of_a_server_becomes_another_s_line(said: str) -> None:
    """Whatever it begins with."""
    trust = LineTrust()
    line = f"files-1  | {said}{DECISION}".encode("utf-8", "replace")
    with pytest.raises(ValueError, match="no line about that request"):
        find_request([line], "r1", trust.takes)


def test_each_kind_has_its_writers() -> None:
    """Envoy writes its access log and nothing of authz's; a name that is given writes all."""
    for kind, name, takes in (
        (DECISION, "envoy-1", False), (ACCESS, "envoy-1", True), (ACCESS, "authz-1", False),
        (LOG_IN, "authz-pages-1", True), (DECISION, "gw-1", True), (ACCESS, "gw", True),
    ):  # fmt: skip
        line = read_line(f"{name}  | {kind}".encode())
        assert LineTrust(frozenset({"gw"})).takes(line) is takes
    ordinary = read_line(b'files-1  | {"event": "started"}')
    trust = LineTrust()
    assert ordinary.kind not in set(LineKind)
    assert not trust.takes(ordinary)
    assert not trust.foreign  # what looks like none of ours is nobody's news


def test_names_of_others_are_bounded() -> None:
    """However many services write lines like ours."""
    trust = LineTrust()
    for number in range(100):
        assert not trust.takes(read_line(f"s{number}x  | {DECISION}".encode()))
    assert len(trust.foreign) == 8


def test_what_writers_say_of_themselves_in_a_journal() -> None:
    """The container, else the unit; what the line says is not asked."""
    for more, name in (
        ({"_SYSTEMD_UNIT": "authz.service"}, "authz"),
        ({"_SYSTEMD_UNIT": "docker.service", "CONTAINER_NAME": "files-1"}, "files-1"),
        ({"_SYSTEMD_UNIT": "files.service"}, "files"),
        ({}, None),
    ):
        record = {"__REALTIME_TIMESTAMP": "1", "MESSAGE": DECISION, **more}
        assert writer(json.dumps(record)) == name
    assert writer(json.dumps({"log": DECISION, "kubernetes": {"container_name": "a"}})) == "a"
    assert writer(json.dumps({"message": DECISION, "podName": "p", "containerName": "c"})) == "c"
