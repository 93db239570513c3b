"""`authz explain`: why a request is allowed or refused, step by step, and what would fix it."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
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
from authz.cli.explained_lines import (
    METHODS,
    explain_lines,
    fix_line,
    fixes_of,
    print_verdict,
    verdict_of,
)
from authz.cli.log_services import foreign_lines, service_option, warn_of_writers
from authz.config.load import load
from authz.core.decision import Deny
from authz.core.policy import Policy, Server
from authz.core.strict_json import loads
from authz.local.redis_location import as_its_service
from authz.local.state import default_folder
from authz.server.explain import explain
from authz.server.sample import http_request
from authz.telemetry.log_reader import (
    MAX_LINE,
    RequestLines,
    bounded_lines,
    find_request,
    lines_of,
    read_request_line,
)
from authz.telemetry.log_writers import LineTrust

_MARKS: Final = {"passed": "\u2713", "refused": "\u2717", "unknown": "?"}
_EXAMPLES: Final = """\
examples:
  authz explain authz.yaml --server files --token-file FILE
  authz explain authz.yaml --server files --tool delete_file --token-file - < FILE
  authz explain authz.yaml --tool delete_file --arguments '{"path": "/data/x"}' --token-file FILE
  tail -1 decisions.log | authz explain --line
  authz explain --request-id 38bc16a1-351e-44fb-9791-87fcf42304f0 --log decisions.log
  docker compose logs | authz explain --request-id 38bc16a1-351e-44fb-9791-87fcf42304f0 --log -
Lines may have what Docker, journald or Kubernetes put before them. An id is on every error page, in
every refusal, and in the header x-request-id.
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
@click.option(
    "--log",
    "logs",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="A log of authz or Envoy, as JSON; - for standard input; more than once for several.",
)
@service_option
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
    logs: tuple[Path, ...],
    services: tuple[str, ...],
    state: Path | None,
    as_json: bool,
) -> int:
    """Explain a request or a line."""
    trust = LineTrust(frozenset(services))
    found_lines = _logged(trust, line=line, request_id=request_id, logs=logs)
    if found_lines is not None:
        return explain_lines(found_lines, as_json=as_json)
    if token_file is None:
        raise CommandError(
            "whose request? --token-file FILE (- for standard input; `authz login` gets a token),"
            " or a request of the log: --request-id ID --log FILE, or --line"
        )
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
        verdict_of(None, "", names)
        if denied is None
        else verdict_of(denied.reason, denied.detail, names)
    )
    steps = [step.to_json() | fixes_of(step.reason, names) for step in found.steps]
    if as_json:
        print(json.dumps(verdict | {"steps": steps}, indent=2))
    else:
        _print_steps(steps)
        if any(step["outcome"] == "unknown" for step in steps):
            print("as far as can be seen from here:")
        print_verdict(verdict)
    return DONE if denied is None else FAILED


def _method(names: Mapping[str, str], method: str | None) -> str:
    """Return the method that is asked about.

    Raises:
        CommandError: where two things are named, or one that the method does not name.
    """
    if len(names) > 1:
        raise CommandError("name one of --tool, --prompt and --resource")
    wanted = next((METHODS[kind] for kind in names), None)
    method = method or wanted or "tools/list"
    for kind, own in METHODS.items():
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


def _logged(
    trust: LineTrust, *, line: bool, request_id: str | None, logs: Sequence[Path]
) -> RequestLines | None:
    """Return what the log says that is asked about; None where a token is.

    Raises:
        CommandError: where the log cannot be read, or has no such line.
    """
    try:
        if line:
            found = read_request_line(sys.stdin.buffer.readline(MAX_LINE + 1))
            if not trust.takes(found):
                raise CommandError(foreign_lines(trust))
            return lines_of(found)
        if request_id is not None and logs:
            with ExitStack() as stack:
                streams = [
                    sys.stdin.buffer if str(log) == "-" else stack.enter_context(log.open("rb"))
                    for log in logs
                ]
                lines = chain.from_iterable(map(bounded_lines, streams))
                try:
                    return find_request(lines, request_id, trust.takes)
                finally:
                    warn_of_writers(trust, logs)
    except (OSError, ValueError) as error:
        raise CommandError(describe_os_error(error)) from None
    if request_id is not None or logs:
        raise CommandError("--request-id and --log go together")
    return None


def _server(policy: Policy, name: str | None) -> Server:
    if name is None and len(policy.servers) == 1:
        return next(iter(policy.servers.values()))
    found = policy.servers.get(name or "")
    if found is None:
        raise CommandError(f"--server is one of: {', '.join(policy.servers)}")
    return found


def _print_steps(steps: list[dict[str, object]]) -> None:
    for step in steps:
        print(f"{_MARKS[str(step['outcome'])]} {step['name']!s:<20} {step['words']}".rstrip())
        notes = step["notes"]
        assert isinstance(notes, list)
        for note in notes:
            print(f"{'':<23}{note}")
        if step["outcome"] == "refused":
            print(f"{'':<23}{step['reason']}: {fix_line(step)}")
