"""`authz explain`: why a request is allowed or refused, step by step, and what would mend it."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from authz.cli.common import (
    DONE,
    FAILED,
    FILE,
    CommandError,
    command,
    config_argument,
    describe_os_error,
    json_option,
    read_token_file,
    state_option,
)
from authz.config.load import load
from authz.config.problems import quoted
from authz.core.decision import Deny
from authz.core.policy import Policy, Server
from authz.core.reason import Reason, fill_in
from authz.core.strict_json import loads
from authz.local.redis_location import as_its_service
from authz.local.up import default_folder
from authz.server.explain import explain
from authz.server.sample import http_request
from authz.telemetry.audit import Record
from authz.telemetry.log_reader import find_decision, read_decision

_MAX_LINE: Final = 64 * 1024
_MARKS: Final = {"passed": "\u2713", "refused": "\u2717", "unknown": "?"}
_EXAMPLES: Final = """\
examples:
  authz explain authz.yaml --server files --token-file FILE
  authz explain authz.yaml --server files --tool delete_file --token-file - < FILE
  authz explain authz.yaml --tool delete_file --arguments '{"path": "/data/x"}' --token-file FILE
  tail -1 decisions.log | authz explain --line
  authz explain --request-id 38bc16a1-351e-44fb-9791-87fcf42304f0 --log decisions.log
A token is never an argument: every user of a machine may read those. Nothing is charged.
exit status: 0 allowed, 1 refused, 2 asked wrongly
"""


@command("explain", _EXAMPLES)
@config_argument
@click.option("--server", metavar="NAME", help="Default: the only one.")
@click.option("--tool", metavar="NAME", help="The tool that is called.")
@click.option("--prompt", metavar="NAME", help="The prompt that is got.")
@click.option("--resource", metavar="URI", help="The resource that is read.")
@click.option("--arguments", metavar="JSON", help="The arguments of --tool or --prompt; @FILE.")
@click.option(
    "--method", metavar="NAME", help="An MCP method, GET or DELETE (default: tools/list)."
)
@click.option("--address", default="", help="The client's address, where limits count addresses.")
@click.option("--token-file", metavar="FILE", help="The access token; - for standard input.")
@click.option("--line", is_flag=True, help="A line of the log on standard input.")
@click.option("--request-id", metavar="ID", help="Of a line of --log.")
@click.option("--log", type=FILE, metavar="FILE", help="The decision log, as JSON.")
@state_option
@json_option("All of it as one JSON object.")
def run(
    *,
    config: Path,
    server: str | None,
    tool: str | None,
    prompt: str | None,
    resource: str | None,
    arguments: str | None,
    method: str | None,
    address: str,
    token_file: str | None,
    line: bool,
    request_id: str | None,
    log: Path | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Explain a request or a line."""
    record = _record(line=line, request_id=request_id, log=log)
    if record is not None:
        return _explain_line(record, as_json=as_json)
    if token_file is None:
        raise CommandError("name the token's file: --token-file FILE, or - for standard input")
    token = read_token_file(token_file).strip("\r\n")
    settings = load(config, os.environ)
    chosen = _server(settings.policy, server)
    named = {"tool": tool, "prompt": prompt, "resource": resource}
    names = {kind: name for kind, name in named.items() if name is not None}
    request = http_request(
        chosen,
        _method(names, method),
        next(iter(names.values()), None),
        token,
        address,
        arguments=_arguments(arguments, names),
    )
    env = as_its_service(settings, os.environ, state or default_folder(config))
    found = asyncio.run(explain(settings, request, env))
    names["server"] = chosen.name
    if found.principal is not None:
        names["client"] = found.principal.client_id
    denied = found.decision if isinstance(found.decision, Deny) else None
    verdict = (
        _verdict(None, "", names)
        if denied is None
        else _verdict(denied.reason, denied.detail, names)
    )
    steps = [step.to_json() | _fixes(step.reason, names) for step in found.steps]
    if as_json:
        print(json.dumps(verdict | {"steps": steps}, indent=2))
    else:
        _print_steps(steps)
        if any(step["outcome"] == "unknown" for step in steps):
            print("as far as can be seen from here:")
        _print_verdict(verdict)
    return DONE if denied is None else FAILED


_METHODS: Final = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}


def _method(names: Mapping[str, str], method: str | None) -> str:
    """Return the method that is asked about.

    Raises:
        CommandError: where two things are named, or one that the method does not name.
    """
    if len(names) > 1:
        raise CommandError("name one of --tool, --prompt and --resource")
    wanted = next((_METHODS[kind] for kind in names), None)
    method = method or wanted or "tools/list"
    for kind, own in _METHODS.items():
        if (own == method) != (own == wanted):
            raise CommandError(f"--{kind} and --method {own} go together")
    return method


def _arguments(text: str | None, names: Mapping[str, str]) -> Mapping[str, object]:
    """Return the arguments of the call, from the command line or a file.

    Raises:
        CommandError: where they are no JSON object, or belong to nothing.
    """
    if text is None:
        return {}
    if names.keys().isdisjoint({"tool", "prompt"}):
        raise CommandError("--arguments belong to --tool or --prompt")
    try:
        members = loads(Path(text[1:]).read_bytes() if text.startswith("@") else text.encode())
    except OSError as error:
        raise CommandError(describe_os_error(error)) from None
    except ValueError:
        raise CommandError("--arguments are no strict JSON") from None
    if not isinstance(members, dict):
        raise CommandError("--arguments are a JSON object")
    return members


def _record(*, line: bool, request_id: str | None, log: Path | None) -> Record | None:
    """Return the line of the log that is asked about; None where a token is.

    Raises:
        CommandError: where the log cannot be read, or has no such line.
    """
    try:
        if line:
            return read_decision(sys.stdin.buffer.readline(_MAX_LINE + 1))
        if request_id is not None and log is not None:
            with log.open("rb") as lines:
                return find_decision(lines, request_id)
    except (OSError, ValueError) as error:
        raise CommandError(describe_os_error(error)) from None
    if request_id is not None or log is not None:
        raise CommandError("--request-id and --log go together")
    return None


def _server(policy: Policy, name: str | None) -> Server:
    if name is None and len(policy.servers) == 1:
        return next(iter(policy.servers.values()))
    found = policy.servers.get(name or "")
    if found is None:
        raise CommandError(f"--server is one of: {', '.join(policy.servers)}")
    return found


def _explain_line(record: Record, *, as_json: bool) -> int:
    """Explain the reason of a line: allowed, or a row of the table."""
    label = record.get("reason")
    if label == "allowed" and record.get("verdict") == "allow":
        verdict = _verdict(None, "", {})
    else:
        reason = next((each for each in Reason if each.label == label), None)
        if reason is None:
            raise CommandError("the line has a reason that this version does not know")
        fields = {"server": "server", "client": "client_id"} | {each: each for each in _METHODS}
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
        **_fixes(reason, names),
    }


def _fixes(reason: Reason | None, names: Mapping[str, str]) -> dict[str, object]:
    if reason is None:
        return {}
    # What a caller chose stands in lines of the log: quoted, it cannot pretend to be words of ours.
    known = {
        kind: value if value.isidentifier() else quoted(value) for kind, value in names.items()
    }
    fields = [fill_in(each, known) for each in reason.row.fields]
    # Fields of a rule about something that was named.
    kinds = [f".{kind}s.<pattern>" for kind in _METHODS if kind in names]
    fields = [
        each for each in fields if "<pattern>" not in each or any(kind in each for kind in kinds)
    ]
    return {"mend": fill_in(reason.row.fix, known), "fields": fields}


def _print_steps(steps: list[dict[str, object]]) -> None:
    for step in steps:
        print(f"{_MARKS[str(step['outcome'])]} {step['name']!s:<20} {step['words']}".rstrip())
        notes = step["notes"]
        assert isinstance(notes, list)
        for note in notes:
            print(f"{'':<23}{note}")
        if step["outcome"] == "refused":
            print(f"{'':<23}{step['reason']}: {_fix(step)}")


def _fix(told: Mapping[str, object]) -> str:
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
    print(f"  what mends it:    {_fix(verdict)}")
