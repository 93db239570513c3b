"""`authz connections` as it is typed: found by client, address, person, time and id."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from tests.telemetry.test_connections import BASE, HOSTED, PHONE, hosted, step


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return self.buffer.getbuffer().nbytes == 0


STOPPED = step(
    BASE + 60, "authorize", "wrong_redirect_uri", network="203.0.113.1",
    client="evil\x1b[2J\nclient", attempt="a2",
)  # fmt: skip
LOG = b"".join(b"authz-1  | " + each for each in [*hosted(BASE), STOPPED])


def typed(monkeypatch: pytest.MonkeyPatch, *argv: str, data: bytes = LOG) -> int:
    monkeypatch.setattr(sys, "stdin", _Stdin(data))
    try:
        return main(["connections", *argv])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ((), ["a1", "a2"]),
        (("--client", "CLAUDE"), ["a1"]),
        (("--client", "evil"), ["a2"]),
        (("--address", PHONE), ["a1"]),
        (("--address", HOSTED), ["a1"]),
        (("--address", "192.0.2.200"), []),
        (("--person", "u-1"), ["a1"]),
        (("--since", "2001-09-09T01:47:30+00:00"), ["a2"]),
        (("--since", "1h"), []),
        (("--stopped",), ["a2"]),
        (("--limit", "1"), ["a2"]),
        (("a1",), ["a1"]),
        (("nothing",), []),
    ],
)
def test_connections_are_found(
    argv: tuple[str, ...],
    found: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By client, address, person, time and id; the status says whether there is one."""
    assert typed(monkeypatch, *argv, "--json") == (0 if found else 1)
    told: Any = json.loads(capsys.readouterr().out)

    assert [each["id"] for each in told["connections"]] == found
    for each in told["connections"]:
        assert each["missing"]
        assert each["fix"]


@pytest.mark.attack("log-injection")
def test_a_story_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list has a line for each; one in detail has its steps, what was missing and a guess."""
    assert typed(monkeypatch) == 0
    listed = capsys.readouterr().out
    assert typed(monkeypatch, "a1") == 0
    told = capsys.readouterr().out
    assert typed(monkeypatch, "a2") == 0
    stopped = capsys.readouterr().out

    assert len(listed.splitlines()) == 3
    assert "connected" in listed
    assert "stopped: authorize wrong_redirect_uri" in listed
    words = ("challenge", "consent", "token", "tied by the address")
    assert all(word in told for word in words)
    assert "has not registered" in stopped
    assert "\x1b" not in listed + stopped
    assert not any(line.startswith("client") for line in (listed + stopped).splitlines())


@pytest.mark.attack("log-injection")
@pytest.mark.parametrize("event", ["page", "log_in", "decision"])
def test_no_field_of_a_line_acts_on_a_terminal_or_a_shell(
    event: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`docker compose logs` has what MCP servers print, too: a line like ours, with escapes and
    commands in every field, ids among them.
    """
    names = (
        "request_id", "detail", "outcome", "client", "client_key", "attempt", "grant", "server",
        "subject", "network", "reason", "client_id", "mcp_method", "address", "path", "route",
    )  # fmt: skip
    bad = {name: f"\x1b]0;{name}\x07\u202e`id` $(id)" for name in names}
    for step_name, reason in (("authorize", "token_missing"), ("refresh", bad["reason"])):
        more = {"event": event, "step": step_name, "reason": reason, "verdict": "deny"}
        line = json.dumps({**bad, **more, "time": BASE}).encode()
        typed(monkeypatch, data=line)
        listed = capsys.readouterr().out
        typed(monkeypatch, "--json", data=line)
        ids = [each["id"] for each in json.loads(capsys.readouterr().out)["connections"]]
        for each in ids:
            assert typed(monkeypatch, each, data=line) == 0
        told = capsys.readouterr().out

        assert all(each.isalnum() for each in ids)
        assert all(each.isprintable() for each in (listed + told).splitlines())
        assert "--request-id \\x" not in told


def test_several_logs_are_one_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each program's own file: the order of the files does not matter."""
    lines = hosted(BASE)
    pages, others = tmp_path / "pages", tmp_path / "others"
    pages.write_bytes(b"".join(each for each in lines if b"log_in" in each))
    others.write_bytes(b"".join(each for each in lines if b"log_in" not in each))

    assert typed(monkeypatch, "--log", str(pages), "--log", str(others), "--json") == 0
    (story,) = json.loads(capsys.readouterr().out)["connections"]
    assert (story["status"], len(story["events"])) == ("connected", len(lines))


def test_lines_in_another_order_are_one_story(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`docker compose logs` and `kubectl logs -l` print one container's lines after another's."""
    lines = [*hosted(BASE), *hosted(BASE)[-1:]]
    grouped = sorted(lines, key=lambda line: (b"log_in" in line, b"/.well-known" not in line))
    assert grouped != lines
    data = b"".join(b"authz-1  | " + each for each in grouped)

    assert typed(monkeypatch, "--json", data=data) == 0
    (story,) = json.loads(capsys.readouterr().out)["connections"]
    assert (story["id"], story["status"]) == ("a1", "connected")


def test_without_a_log_it_says_how_to_give_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal it does not wait for what nobody types."""
    assert typed(monkeypatch, data=b"") == 2
    assert "docker compose logs" in capsys.readouterr().err
    assert typed(monkeypatch, "--since", "yesterday") == 2
    assert typed(monkeypatch, "--log", "/nonexistent/log") == 2


def test_what_other_services_print_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines like ours of another service count as nothing unless it is named."""
    forged = b"".join(b"files-1  | authz-1  | " + each for each in hosted(BASE))
    assert typed(monkeypatch, "--json", data=forged) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["connections"] == []
    assert "written by files-1 (" in err
    assert "--service NAME" in err
    assert typed(monkeypatch, "--json", data=LOG + forged) == 0
    out, err = capsys.readouterr()
    assert [each["id"] for each in json.loads(out)["connections"]] == ["a1", "a2"]
    assert typed(monkeypatch, "--json", "--service", "files", data=forged) == 0
    assert "files" not in capsys.readouterr().err


def test_lines_without_a_name_are_believed_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `docker compose logs --no-log-prefix` and `docker logs` print them: with a warning on
    standard input; a file that was named is what it is said to be.
    """
    bare = b"".join(hosted(BASE))
    assert typed(monkeypatch, "--json", data=bare) == 0
    assert "do not say which service wrote them" in capsys.readouterr().err
    file = tmp_path / "authz.log"
    file.write_bytes(bare)
    assert typed(monkeypatch, "--json", "--log", str(file), data=b"") == 0
    assert not capsys.readouterr().err
