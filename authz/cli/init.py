"""`authz init`: a folder that runs with Docker Compose."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from authz.cli.common import DONE, WRONG, command
from authz.setup.answers import LOGINS, SAMPLES, AnswerError, SetupAnswers
from authz.setup.discovery import check_issuer, domain_of, find_issuer
from authz.setup.folder import FileOutcome
from authz.setup.prompts import complete_answers, earlier_answers, read_password
from authz.setup.write import ANSWERS, SetupResult, write_folder

_EXAMPLES: Final = """\
examples:
  authz init deploy                                    asks for a domain, a person and a password
  authz init deploy --domain home.example.com --user john --password-file - < password
  authz init deploy --domain demo.localhost --port 8443 --bind 127.0.0.1     to try it here
  authz init deploy --domain home.example.com --server github=http://github-mcp:8080/mcp
  authz init deploy --funnel mcp.tail1234.ts.net       Tailscale Funnel leads in
  authz init deploy --authelia /etc/authelia/configuration.yml  with an Authelia that is there
  authz init deploy --render                           authz.yaml was changed: make what it implies

What is there already stays as it is. docs/compose.md tells the rest.
"""
_OTHER: Final = "it differs from what would be written now; remove it to have that"
_FLAGS: Final = (
    *("domain", "user", "display_name", "email", "port", "bind", "funnel", "internal"),
    "login",
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "write a folder that runs with Docker Compose"
    parser = command(commands, "init", words, run, _EXAMPLES)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="default: this one")
    parser.add_argument("--domain", help="what the names end in: mcp.DOMAIN and auth.DOMAIN")
    parser.add_argument("--user", help="name of the first person (default: admin)")
    parser.add_argument("--display-name", help="as pages show it")
    parser.add_argument("--email", help="of the first person")
    parser.add_argument(
        "--password-file", metavar="FILE", help="- reads standard input; left out, one is made"
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="an MCP server, as Envoy reaches it (default: the two samples)",
    )
    parser.add_argument("--port", type=int, help="of the gateway on this machine (default: 443)")
    parser.add_argument("--bind", metavar="ADDRESS", help="IPv4 address (default: 0.0.0.0)")
    parser.add_argument("--funnel", metavar="NAME", help="the Tailscale node's whole name")
    parser.add_argument("--authelia", type=Path, metavar="FILE", help="configuration of one's own")
    parser.add_argument("--issuer", metavar="URL", help="of that Authelia, where FILE does not say")
    parser.add_argument("--internal", metavar="URL", help="how our networks reach that Authelia")
    parser.add_argument("--login", choices=LOGINS, help="of MCP clients (default: front_door)")
    parser.add_argument("--owner", metavar="UID:GID", help="who the containers run as")
    parser.add_argument("--render", action="store_true", help="renew what authz.yaml implies")
    parser.add_argument("--yes", action="store_true", help="ask nothing, also on a terminal")
    parser.add_argument("--json", action="store_true", help="say what was done as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write what is missing, and tell what is next."""
    there = sys.stdin.isatty() and not arguments.yes and not arguments.json
    try:
        before = earlier_answers(arguments.folder, ANSWERS)
        given = _given(arguments, new=not before)
        answers, asked = complete_answers(given, before, input if there else None)
        secret = read_password(arguments.password_file, ask=asked)
        done = write_folder(arguments.folder, answers, secret, render=arguments.render)
    except AnswerError as error:
        print(f"authz: {error}", file=sys.stderr)
        return WRONG
    if arguments.json:
        print(json.dumps(_json(done, answers), indent=2))
        return DONE
    for line in _told(done, answers):
        print(line)
    return DONE


def _given(arguments: argparse.Namespace, *, new: bool) -> dict[str, Any]:
    """Return what the flags say; who owns the folder is decided when it is new."""
    given: dict[str, Any] = {
        name: value for name in _FLAGS if (value := getattr(arguments, name)) is not None
    }
    if arguments.server:
        given["servers"] = dict(map(_server, arguments.server))
    url = arguments.issuer
    if arguments.authelia is not None and url is None:
        url = find_issuer(arguments.authelia)
    if url is not None:
        given["issuer_url"] = check_issuer(url)
        given.setdefault("domain", domain_of(url))
    if arguments.funnel is not None:
        given.setdefault("domain", arguments.funnel)
    if arguments.owner is not None or new:
        given["uid"], given["gid"] = _owner(arguments.owner)
    return given


def _server(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals:
        url = SAMPLES.get(name, "")
    return name, url


def _owner(text: str | None) -> tuple[int, int]:
    """Return who the containers run as: whoever asks, but never root."""
    if text is None:
        uid, gid = os.getuid(), os.getgid()
        return (uid, gid) if uid and gid else (65532, 65532)
    uid_text, _, gid_text = text.partition(":")
    if not (uid_text.isdecimal() and gid_text.isdecimal()):
        raise AnswerError("owner: write UID:GID, as 1000:1000")
    return int(uid_text), int(gid_text)


def _json(done: SetupResult, answers: SetupAnswers) -> dict[str, Any]:
    return {
        "folder": str(done.folder),
        "gateway": answers.gateway,
        "issuer": answers.issuer,
        "servers": {name: f"{answers.gateway}/{name}" for name in answers.servers},
        "user": answers.user if answers.ours else None,
        "password_file": None if done.password_file is None else str(done.password_file),
        "files": {name: outcome.value for name, outcome in done.outcomes.items()},
        "stale": list(done.stale),
    }


def _told(done: SetupResult, answers: SetupAnswers) -> Iterator[str]:
    for name, outcome in done.outcomes.items():
        if outcome in {FileOutcome.WRITTEN, FileOutcome.RENEWED}:
            yield f"{outcome.value}  {name}"
    kept = [name for name, what in done.outcomes.items() if what is FileOutcome.KEPT]
    for name in kept:
        implied = name in done.stale
        why = "authz.yaml implies another; --render renews it" if implied else _OTHER
        yield f"kept     {name}: {why}"
    if FileOutcome.WRITTEN not in done.outcomes.values():
        yield "Nothing was missing." if not kept else "Nothing was overwritten."
        return
    yield ""
    yield from _next(done, answers)


def _next(done: SetupResult, answers: SetupAnswers) -> Iterator[str]:
    """Yield what a person does next, in its order."""
    yield f"gateway  {answers.gateway}   portal  {answers.issuer}"
    if done.password_file is not None:
        yield f"{answers.user}'s password is in {done.password_file}; change it in the portal."
    yield "Next, in this folder (docs/compose.md has each step in words):"
    if answers.funnel:
        yield "  put the node's key into secrets/tailscale_authkey, and allow Funnel in the tailnet"
    elif not answers.domain.endswith("localhost"):
        names = " ".join(f"{each}.{answers.domain}" for each in ("mcp", "auth"))
        yield f"  let {names} lead to this machine (DNS, or /etc/hosts of every client)"
        yield "  trust ca.crt on the clients, or put your own pair into secrets/tls/"
    else:
        yield "  trust ca.crt on the clients"
    if answers.ours:
        yield "  docker compose up -d       (or docker-compose up -d)"
        yield "  docker compose exec authelia authelia storage user totp generate " + answers.user
        yield "      prints the otpauth:// line for the authenticator app"
    else:
        yield "  start your Authelia with authelia/authz.yml beside its own configuration"
        yield "  docker compose up -d, and let it into the network `auth` (docs/compose.md)"
    yield "  authz client-config claude authz.yaml   what to paste; also vscode, cursor, inspector"
