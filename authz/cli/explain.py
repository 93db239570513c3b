"""`authz explain`: why a request is allowed or refused, step by step, and what would mend it."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from authz.cli.common import DONE, FAILED, WRONG, command, config_argument, os_words, state_argument
from authz.config.load import load
from authz.config.problems import quoted
from authz.core.decision import Deny
from authz.core.policy import Policy, Server
from authz.core.reason import Reason, fill_in
from authz.server.sample import http_request
from authz.telemetry.audit import Record
from authz.telemetry.log_reader import find_decision, read_decision

_LONGEST: Final = 64 * 1024
_MARKS: Final = {"passed": "\u2713", "refused": "\u2717", "unknown": "?"}
_EXAMPLES: Final = """\
examples:
  authz explain authz.yaml --server files --token-file FILE
  authz explain authz.yaml --server files --tool delete_file --token-file - < FILE
  tail -1 decisions.log | authz explain --line
  authz explain --request-id 38bc16a1-351e-44fb-9791-87fcf42304f0 --log decisions.log
A token is never an argument: every user of a machine may read those. Nothing is charged.
exit status: 0 allowed, 1 refused, 2 asked wrongly
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "say why a request is allowed or refused, step by step"
    parser = command(commands, "explain", words, run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument("--server", metavar="NAME", help="default: the only one")
    parser.add_argument("--tool", metavar="NAME", help="the tool that is called")
    parser.add_argument(
        "--method", metavar="NAME", help="an MCP method, GET or DELETE (default: tools/list)"
    )
    parser.add_argument(
        "--address", default="", help="the client's address, where limits count addresses"
    )
    parser.add_argument("--token-file", metavar="FILE", help="- for standard input")
    parser.add_argument("--line", action="store_true", help="a line of the log on standard input")
    parser.add_argument("--request-id", metavar="ID", help="of a line of --log")
    parser.add_argument("--log", type=Path, metavar="FILE", help="the decision log, as JSON")
    state_argument(parser)
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Explain a request or a line."""
    try:
        record = _line(arguments)
        token = "" if record is not None else _token(arguments.token_file)
    except (OSError, ValueError) as error:
        print(f"authz: {os_words(error)}", file=sys.stderr)
        return WRONG
    if record is not None:
        return _explain_line(record, as_json=arguments.json)
    settings = load(arguments.config, os.environ)
    server = _server(settings.policy, arguments.server)
    method = arguments.method or ("tools/call" if arguments.tool else "tools/list")
    if server is None:
        print(f"authz: --server is one of: {', '.join(settings.policy.servers)}", file=sys.stderr)
        return WRONG
    if (arguments.tool is not None) != (method == "tools/call"):
        print("authz: --tool and --method tools/call go together", file=sys.stderr)
        return WRONG
    # The service's rooms take a while to load.
    from authz.local.redis_location import as_its_service  # noqa: PLC0415 - said above
    from authz.local.up import default_folder  # noqa: PLC0415 - said above
    from authz.server.explain import explain  # noqa: PLC0415 - said above

    request = http_request(server, method, arguments.tool, token, arguments.address)
    folder = arguments.state or default_folder(arguments.config)
    env = as_its_service(settings, os.environ, folder)
    found = asyncio.run(explain(settings, request, env))
    names = {"server": server.name}
    if arguments.tool is not None:
        names["tool"] = arguments.tool
    if found.principal is not None:
        names["client"] = found.principal.client_id
    denied = found.decision if isinstance(found.decision, Deny) else None
    verdict = (
        _verdict(None, "", names)
        if denied is None
        else _verdict(denied.reason, denied.detail, names)
    )
    steps = [step.to_json() | _mended(step.reason, names) for step in found.steps]
    if arguments.json:
        print(json.dumps(verdict | {"steps": steps}, indent=2))
    else:
        _print_steps(steps)
        if any(step["outcome"] == "unknown" for step in steps):
            print("as far as can be seen from here:")
        _print_verdict(verdict)
    return DONE if denied is None else FAILED


def _line(arguments: argparse.Namespace) -> Record | None:
    """Return the line that is asked about; None where a token is.

    Raises:
        OSError: where the log cannot be read.
        ValueError: where there is no such line, or half of a question.
    """
    if arguments.line:
        return read_decision(sys.stdin.buffer.readline(_LONGEST + 1))
    if (arguments.request_id is None) != (arguments.log is None):
        raise ValueError("--request-id and --log go together")
    if arguments.log is None:
        return None
    with arguments.log.open("rb") as lines:
        return find_decision(lines, arguments.request_id)


def _token(name: str | None) -> str:
    """Return the token of a file, or of standard input.

    Raises:
        ValueError: where none is named, it cannot be read, or it is no text.
    """
    if name is None:
        raise ValueError("name the token's file: --token-file FILE, or - for standard input")
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_LONGEST + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_LONGEST + 1)
    except OSError as error:
        # Not the path: a token may have been pasted in its place.
        raise ValueError(f"--token-file: {error.strerror}") from None
    if len(data) > _LONGEST or not data.isascii():
        raise ValueError("--token-file: that is no token")
    return data.decode("ascii").strip("\r\n")


def _server(policy: Policy, name: str | None) -> Server | None:
    if name is None and len(policy.servers) == 1:
        return next(iter(policy.servers.values()))
    return policy.servers.get(name or "")


def _explain_line(record: Record, *, as_json: bool) -> int:
    """Explain the reason of a line: allowed, or a row of the table."""
    label = record.get("reason")
    if label == "allowed" and record.get("verdict") == "allow":
        verdict = _verdict(None, "", {})
    else:
        reason = next((each for each in Reason if each.label == label), None)
        if reason is None:
            print("authz: the line has a reason that this version does not know", file=sys.stderr)
            return WRONG
        fields = {"server": "server", "client": "client_id", "tool": "tool"}
        names = {kind: str(record[name]) for kind, name in fields.items() if name in record}
        verdict = _verdict(reason, str(record.get("detail", "")), names)
    if as_json:
        print(json.dumps(verdict, indent=2))
    else:
        _print_verdict(verdict)
    return FAILED if verdict["verdict"] == "deny" else DONE


def _verdict(reason: Reason | None, detail: str, names: Mapping[str, str]) -> dict[str, object]:
    if reason is None:
        return {"verdict": "allow", "reason": "allowed"}
    row = reason.row
    return {
        "verdict": "deny",
        "reason": reason.label,
        "detail": detail,
        "status": row.status,
        "sentence": row.sentence,
        "meaning": row.meaning,
        **_mended(reason, names),
    }


def _mended(reason: Reason | None, names: Mapping[str, str]) -> dict[str, object]:
    if reason is None:
        return {}
    # What a caller chose stands in lines of the log: quoted, it cannot pretend to be words of ours.
    known = {
        kind: value if value.isidentifier() else quoted(value) for kind, value in names.items()
    }
    fields = [fill_in(each, known) for each in reason.row.fields]
    if "tool" not in names:
        fields = [each for each in fields if "<pattern>" not in each]
    return {"mend": fill_in(reason.row.fix, known), "fields": fields}


def _print_steps(steps: list[dict[str, object]]) -> None:
    for step in steps:
        print(f"{_MARKS[str(step['outcome'])]} {step['name']!s:<20} {step['words']}".rstrip())
        notes = step["notes"]
        assert isinstance(notes, list)
        for note in notes:
            print(f"{'':<23}{note}")
        if step["outcome"] == "refused":
            print(f"{'':<23}{step['reason']}: {_mend(step)}")


def _mend(told: Mapping[str, object]) -> str:
    fields = told.get("fields")
    where = f" (authz.yaml: {', '.join(fields)})" if isinstance(fields, list) and fields else ""
    return f"{told['mend']}{where}"


def _print_verdict(verdict: Mapping[str, object]) -> None:
    if verdict["verdict"] == "allow":
        print("allowed")
        return
    print(f"refused: {verdict['reason']}, HTTP {verdict['status']}")
    print(f"  the client reads: {verdict['sentence']}")
    print(f"  what it means:    {verdict['meaning']}")
    if verdict["detail"]:
        print(f"  detail:           {quoted(str(verdict['detail']))}")
    print(f"  what mends it:    {_mend(verdict)}")
