"""Lines of a log as Docker, journald and Kubernetes give them back."""

import io
import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.telemetry.log_reader import (
    MAX_LINE,
    LineKind,
    bounded_lines,
    find_request,
    read_line,
    read_request_line,
)

# What the real journald 252, Docker 20.10, docker-compose 1.29 and containerd 1.6 (by crictl) made
# of one line of the log.
COLLECTED: Final = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "logs" / "collected.json").read_text()
)
UNKNOWN: Final = {"journalctl -o json-seq", "journalctl -o json-sse"}
RECORD = {"time": 1.5, "event": "decision", "verdict": "deny", "request_id": "r1", "tool": "a b"}
LINE = json.dumps(RECORD, separators=(",", ":"))
ISO = "2026-11-30T08:53:48.123456789Z"
PREFIXES = {
    "alone": ("", ""),
    "compose": ("authz-1  | ", "authz-1"),
    "compose-colour": ("\x1b[36mauthz-1  | \x1b[0m", "authz-1"),
    "compose-times": (f"authz-1  | {ISO} ", "authz-1"),
    "podman-compose": ("[authz] | ", "[authz]"),
    "swarm": ("gw_authz.1.k3x@node-2    | ", "gw_authz.1.k3x@node-2"),
    "docker-times": (f"{ISO} ", ""),
    "cri": ("2026-11-30T08:53:48.123456789+01:00 stdout F ", "stdout"),
    "kubectl": ("[pod/authz-6d5f-x2/authz] ", "pod/authz-6d5f-x2/authz"),
    "kubectl-times": (f"[pod/authz-6d5f-x2/authz] {ISO} ", "pod/authz-6d5f-x2/authz"),
    "stern": ("authz-6d5f7c-x2vkq authz ", "authz-6d5f7c-x2vkq authz"),
    "journald": ("Nov 30 08:53:48 gw authz[123]: ", "gw authz[123]"),
    "journald-day": ("Nov  3 08:53:48 gw authz[123]: ", "gw authz[123]"),
    "journald-iso": ("2026-11-30T08:53:48+0100 gw authz[123]: ", "gw authz[123]"),
    "journald-full": ("Mon 2026-11-30 08:53:48 UTC gw authz[123]: ", "gw authz[123]"),
    "syslog": ("<30>Nov 30 08:53:48 gw authz[123]: ", "gw authz[123]"),
    "unit-of-compose": ("Nov 30 08:53:48 gw docker[9]: authz-1  | ", "gw docker[9] authz-1"),
    "loki": (f'{ISO} {{app="authz", pod="x"}} ', '{app="authz", pod="x"}'),
}
ENVELOPES = {
    "json-file": ({"log": LINE + "\n", "stream": "stdout", "time": ISO}, ""),
    "journald-json": (
        {"__REALTIME_TIMESTAMP": "17", "MESSAGE": LINE, "_SYSTEMD_UNIT": "authz.service"},
        "authz.service",
    ),
    "stern-json": (
        {"message": LINE + "\n", "podName": "authz-x", "namespace": "mcp", "nodeName": "n"},
        "authz-x",
    ),
    "fluent-bit": ({"log": LINE, "kubernetes": {"pod_name": "authz-x"}}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("prefix", "source"), PREFIXES.values(), ids=PREFIXES)
def test_a_line_is_read_behind_what_stands_before_it(prefix: str, source: str) -> None:
    """The record is the whole line's, and where it comes from is said."""
    found = read_request_line(f"{prefix}{LINE}\r\n".encode())

    assert (found.record, found.source, found.kind) == (RECORD, source, LineKind.DECISION)


@pytest.mark.parametrize(("envelope", "source"), ENVELOPES.values(), ids=ENVELOPES)
def test_a_line_is_read_out_of_a_collectors_object(
    envelope: dict[str, object], source: str
) -> None:
    """What the object holds is read as the line that it was."""
    found = read_request_line(json.dumps(envelope).encode())

    assert (found.record, found.source) == (RECORD, source)
    assert find_request([json.dumps(envelope).encode()], "r1").decision == found


@pytest.mark.parametrize("how", sorted(COLLECTED["collected"].keys() - UNKNOWN))
def test_a_line_is_read_as_real_collectors_give_it_back(how: str) -> None:
    """Whatever they put around it; recorded."""
    line = COLLECTED["collected"][how].encode()
    record = json.loads(COLLECTED["line"])

    assert read_request_line(line).record == record
    assert find_request([line], record["request_id"]).decision is not None


@pytest.mark.parametrize("how", sorted(UNKNOWN))
def test_what_cannot_be_read_is_told_to_be_there(how: str) -> None:
    """Of an id in such a line it is said which form to take."""
    line = COLLECTED["collected"][how].encode()

    with pytest.raises(ValueError, match="journalctl -o cat"):
        find_request([line], json.loads(COLLECTED["line"])["request_id"])


@pytest.mark.attack("log-injection")
@pytest.mark.parametrize(
    "line",
    [
        f"GET /files {LINE}",
        f"files-1  | GET /files {LINE}",
        f"level=info msg=asked path={LINE}",
        f"2026-11-30 08:53:48,123 root INFO: {LINE}",
        f"2026-11-30T08:53:48Z INFO: {LINE}",
        f"Nov 30 08:53:48 INFO: {LINE}",
        f"data: {LINE}",
        f"{LINE} {LINE}",
        f"{LINE} and more",
        f"x{LINE}",
        json.dumps({"message": LINE}),
        json.dumps({"log": LINE}),
        json.dumps({"event": "decision?", "log": LINE, "stream": "stdout"}),
        json.dumps({**RECORD, "event": "started", "tool": LINE}),
        json.dumps([RECORD]),
        "a | " * 9 + LINE,
    ],
)
def test_text_inside_a_line_is_no_line(line: str) -> None:
    """What another program repeats of a caller's words never becomes a decision."""
    with pytest.raises(ValueError, match=r"not a|JSON"):
        read_request_line(line.encode())
    with pytest.raises(ValueError, match="no line about that request"):
        find_request([line.encode()], "r1")


@given(st.binary(max_size=300), st.sampled_from([b"", LINE.encode()]))
def test_any_bytes_are_a_line_or_a_value_error(before: bytes, after: bytes) -> None:
    """Nothing else is raised, and what is found is that very record."""
    try:
        found = read_line(before + after)
    except ValueError:
        return
    assert after == b"" or found.record == RECORD or "event" not in found.record


def test_a_line_without_end_costs_no_memory_and_hides_no_other() -> None:
    """What is longer than any line of ours is passed over, and the next one is read."""
    long = b"{" + b"x" * (3 * MAX_LINE)
    lines = list(bounded_lines(io.BytesIO(long + b"\n" + LINE.encode() + b"\n" + b"end")))

    assert lines == [LINE.encode() + b"\n", b"end"]


def test_the_lines_of_all_logs_about_a_request_are_found() -> None:
    """The last of each kind, and the steps of a log-in in their order, up to a bound."""
    access = {"status": 503, "details": "x", "flags": "UF", "request_id": "r1"}
    steps = [{"event": "log_in", "step": "token", "n": n, "request_id": "r1"} for n in range(40)]
    records = [
        RECORD,
        access,
        {**RECORD, "request_id": "r2"},
        *steps,
        {"event": "page", "request_id": "r1"},
    ]
    found = find_request([json.dumps(each).encode() for each in records], "r1")

    assert found.decision is not None
    assert found.decision.record == RECORD
    assert found.access is not None
    assert found.access.kind is LineKind.ACCESS
    assert found.page is not None
    assert [line.record["n"] for line in found.steps] == list(range(8, 40))
