"""`authz audit` as it is typed, on a real Valkey."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.audit.chain import AuditChain, TrailKeys
from authz.audit.query import as_json_line, as_text, read_json_line
from authz.audit.record import AuditEvent, AuditRecord, body
from authz.audit.store import TrailEntry, TrailStore
from authz.cli import main
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.support.valkey import ValkeyServer, valkey

TEXT = """\
issuer: {url: 'https://auth.example.test'}
gateway: {url: 'https://mcp.example.com', tls: {certificate: /c, key: /k}, max_stream: 90s}
servers: {files: {upstream: 'http://files:8000/mcp'}}
clients: {claude: {}}
"""
NOW = time.time()
HOSTILE = "x\x1b[2J\n\r\u202egnp.exe\x7f"


def fields(tool: str, verdict: str = "allow", **more: str) -> tuple[tuple[str, str], ...]:
    given_fields = {
        "verdict": verdict,
        "reason": "allowed" if verdict == "allow" else "insufficient_scope",
        "server": "files",
        "mcp_method": "tools/call",
        "tool": tool,
        "subject": "4f1e",
        "account": "Ada",
        "client_id": "claude",
        "request_id": f"id-{tool}",
    } | more
    return tuple(given_fields.items())


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey() as running:
        yield running


@pytest.fixture
def chain(server: ValkeyServer) -> Iterator[AuditChain]:
    """Write six records: two days ago, an hour ago, and now."""
    chain = AuditChain(TrailKeys().newest)
    moments = [
        (NOW - 2 * 86_400, fields("old")),
        (NOW - 3600, fields("read")),
        (NOW - 3600, fields("drop", "deny")),
        (NOW, fields("other", subject="99", account="bob", client_id="cursor")),
        (NOW, fields(HOSTILE)),
    ]
    records = [chain.add(body(AuditEvent.DECISION, each), moment) for moment, each in moments]
    records.append(chain.add(body(AuditEvent.END, ()), NOW))

    async def write() -> None:
        ledger = RedisLedger(RedisOptions(server.url, timeout=20))
        store = TrailStore(ledger.command, RedisKeys("authz"))
        await store.append(chain.name, records, [None] * len(records), 86_400)
        await ledger.aclose()

    asyncio.run(write())
    yield chain
    server.command("FLUSHALL")


class Audit:
    """Type `authz audit`, and keep what it prints."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys
        self.out, self.err = "", ""

    def __call__(self, *words: str) -> int:
        try:
            code = main(["audit", *words, "-c", str(self._config)])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        self.out, self.err = self._capsys.readouterr()
        return code

    @property
    def tools(self) -> list[str]:
        return [json.loads(line)["record"]["tool"] for line in self.out.splitlines()]


@pytest.fixture
def audit(
    tmp_path: Path,
    server: ValkeyServer,
    chain: AuditChain,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Audit:
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT)
    monkeypatch.setenv("AUTHZ_REDIS_URL", server.url)
    return Audit(path, capsys)


@pytest.mark.parametrize(
    ("words", "tools"),
    [
        ("", ["old", "read", "drop", "other", HOSTILE]),
        ("--person ada", ["old", "read", "drop", HOSTILE]),
        ("--person 99", ["other"]),
        ("--person nobody", []),
        ("--client cursor", ["other"]),
        ("--server files --limit 2", ["other", HOSTILE]),
        ("--server notes", []),
        ("--tool drop", ["drop"]),
        ("--reason insufficient_scope", ["drop"]),
        ("--outcome deny", ["drop"]),
        ("--request-id id-read", ["read"]),
        ("--since 1d --outcome allow", ["read", "other", HOSTILE]),
        ("--until 30m", ["old", "read", "drop"]),
        ("--since 1d --until 30m", ["read", "drop"]),
        ("--limit 0", ["old", "read", "drop", "other", HOSTILE]),
        ("--limit 0 --person ada --outcome deny", ["drop"]),
    ],
)
def test_each_filter_chooses_what_it_says(audit: Audit, words: str, tools: list[str]) -> None:
    """Alone and together; the oldest first, the latest of them where there are more."""
    assert audit("--json", *words.split()) == 0
    assert audit.tools == tools


@pytest.mark.attack("terminal-escapes")
def test_what_a_caller_chose_reaches_no_terminal_unescaped(audit: Audit) -> None:
    """A tool's name moves no cursor, adds no line and turns no text."""
    assert audit("--limit", "1") == 0
    assert len(audit.out.splitlines()) == 1
    assert audit.out.rstrip("\n").isascii()
    assert audit.out.rstrip("\n").isprintable()
    assert audit("--limit", "1", "--json") == 0
    assert audit.out.rstrip("\n").isprintable()


@pytest.mark.attack("terminal-escapes")
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=6))
def test_no_record_reaches_a_terminal_unescaped(given_fields: dict[str, str]) -> None:
    """Nor do the fields of a record that somebody else wrote into Redis, whatever their names."""
    line = as_text(AuditRecord(1.0, "c", 0, "", AuditEvent.DECISION, given_fields))

    assert line.isascii()
    assert line.isprintable()


def test_a_whole_trail_verifies_and_a_changed_one_does_not(
    audit: Audit, server: ValkeyServer
) -> None:
    """Exit status 0 and 1; a removed record is named by its chain and number."""
    assert audit("--verify") == 0
    assert "6 records in 1 chains" in audit.out
    assert "no sealing key" in audit.err
    third = server.command("XRANGE", "{authz}:audit", "-", "+", "COUNT", 3)[2][0]
    server.command("XDEL", "{authz}:audit", third)
    assert audit("--verify") == 1
    assert re.search(r"removed: chain [0-9a-f]{16}, record 2 at ", audit.out)


@pytest.mark.attack("audit-cut")
def test_the_log_shows_an_end_that_was_cut_in_redis(
    audit: Audit, server: ValkeyServer, chain: AuditChain, tmp_path: Path
) -> None:
    """Whoever cuts the trail and its head is found by the log, which is not in Redis."""
    assert chain.head is not None
    log = tmp_path / "log"
    event: dict[str, Any] = {
        "time": NOW, "event": "audit_head", "chain": chain.name,
        "n": chain.head.number, "mac": chain.head.mac,
    }  # fmt: skip
    forgotten = event | {"time": 1.0, "chain": "long-gone"}
    log.write_text(f"no json audit_head\n{json.dumps(forgotten)}\n{json.dumps(event)}\n")
    assert audit("--verify", "--log", str(log)) == 0

    entries = server.command("XRANGE", "{authz}:audit", "-", "+")
    for entry in entries[4:]:
        server.command("XDEL", "{authz}:audit", entry[0])
    head = f"3 {entries[3][1][b'm'].decode()}"
    server.command("HSET", "{authz}:audit-heads", chain.name, head)
    assert audit("--verify") == 0
    assert audit("--verify", "--log", str(log)) == 1
    assert "truncated" in audit.out


@pytest.mark.parametrize("text", ["", 'authz-1  | {"event": "audit_head"}\n', "audit_head n=1\n"])
def test_a_log_without_an_end_of_a_chain_proves_nothing(
    audit: Audit, tmp_path: Path, text: str
) -> None:
    """An empty log, one with Docker's prefixes or one in words: the trail is not called whole."""
    log = tmp_path / "log"
    log.write_text(text)
    assert audit("--verify", "--log", str(log)) == 1
    assert "the trail is whole" not in audit.out


def test_a_file_of_json_lines_is_queried_and_verified(audit: Audit, tmp_path: Path) -> None:
    """What was written to a file is as good as what is in Redis, to the byte."""
    assert audit("--json", "--all", "--limit", "0") == 0
    file = tmp_path / "trail.jsonl"
    file.write_text(audit.out)
    assert audit("--file", str(file), "--verify") == 0
    assert audit("--file", str(file), "--tool", "drop", "--json") == 0
    assert audit.tools == ["drop"]
    file.write_text(file.read_text().replace('"tool":"drop"', '"tool":"read"'))
    assert audit("--file", str(file), "--verify") == 1
    file.write_text("no line of ours\n")
    assert audit("--file", str(file), "--verify") == 1


@pytest.mark.parametrize(
    "words",
    [
        "--since yesterday",
        "--since 2026-08-01T12:00:00",
        "--outcome maybe",
        "--limit -1",
        "--verify --tool x",
        "--log x",
        "--follow --verify",
        "too many",
    ],
)
def test_what_makes_no_sense_is_said(audit: Audit, words: str) -> None:
    """Exit status 2."""
    assert audit(*words.split()) == 2


@given(st.text(max_size=30), st.binary(max_size=200), st.text(max_size=30))
def test_a_line_of_json_is_read_as_it_was_written(tool: str, text: bytes, mac: str) -> None:
    """A record comes back to the byte; what others wrote into Redis is one printable line too."""
    record = AuditChain(b"k").add(body(AuditEvent.DECISION, (("tool", tool),)), 1.0)
    entry = TrailEntry("1-0", record.text, record.link.mac)
    assert read_json_line(as_json_line(entry) + "\n") == entry
    json.loads(as_json_line(entry))

    line = as_json_line(TrailEntry("1-0", text, mac))
    assert line.isascii()
    assert line.isprintable()


def test_a_trail_that_is_off_is_said(
    server: ValkeyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`audit: off` is taken as a word, and nobody takes an old or empty list for all there was."""
    path = tmp_path / "authz.yaml"
    path.write_text(f"{TEXT}redis: {{url: '{server.url}'}}\naudit: off\n")
    assert main(["audit", "-c", str(path), "--person", "nobody"]) == 0
    assert "nothing is recorded" in capsys.readouterr().err
