"""`authz init`: a folder that runs with Docker Compose."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from authz.cli.common import DONE, FILE, CommandError, command, json_option
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
  authz init deploy --funnel mcp.tail1234.ts.net --one-name         Tailscale Funnel leads in
  authz init deploy --authelia /etc/authelia/configuration.yml  with an Authelia that is there
  authz init deploy --render                           authz.yaml was changed: make what it implies

What is there already stays as it is. docs/compose.md tells the rest.
"""
_OTHER: Final = "yours, and stays; what would be written now differs: move it away to have that"


@command("init", _EXAMPLES)
@click.argument("folder", type=FILE, default=Path(), metavar="[FOLDER]")
@click.option("--domain", help="What the names end in: mcp.DOMAIN and auth.DOMAIN.")
@click.option("--user", help="Name of the first person (default: admin).")
@click.option("--display-name", help="As pages show it.")
@click.option("--email", help="Of the first person.")
@click.option(
    "--password-file", metavar="FILE", help="- reads standard input; left out, one is made."
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME=URL",
    help="An MCP server, as Envoy reaches it (default: the two samples).",
)
@click.option("--port", type=int, help="Of the gateway on this machine (default: 443).")
@click.option("--bind", metavar="ADDRESS", help="IPv4 address (default: 0.0.0.0).")
@click.option("--funnel", metavar="NAME", help="The Tailscale node's whole name.")
@click.option(
    "--one-name",
    is_flag=True,
    default=None,
    help="The portal at /auth of the gateway's name, not at one (or a port) of its own.",
)
@click.option("--authelia", type=FILE, metavar="FILE", help="Configuration of one's own.")
@click.option("--issuer", metavar="URL", help="Of that Authelia, where FILE does not say.")
@click.option("--internal", metavar="URL", help="How our networks reach that Authelia.")
@click.option("--login", type=click.Choice(LOGINS), help="Of MCP clients (default: front_door).")
@click.option(
    "--replicas", type=int, metavar="N", help="Of the service that decides: 1 or 2 (default: 1)."
)
@click.option(
    "--runbooks", metavar="URL", help="Of docs/runbooks.md on the web, for the links of alerts."
)
@click.option("--owner", metavar="UID:GID", help="Who the containers run as.")
@click.option("--render", is_flag=True, help="Renew what authz.yaml implies.")
@click.option("--yes", is_flag=True, help="Ask nothing, also on a terminal.")
@json_option("Say what was done as JSON.")
def run(
    *,
    folder: Path,
    password_file: str | None,
    servers: tuple[str, ...],
    authelia: Path | None,
    issuer: str | None,
    owner: str | None,
    render: bool,
    yes: bool,
    as_json: bool,
    **flags: str | int | None,
) -> int:
    """Write what is missing, and tell what is next."""
    terminal = sys.stdin.isatty() and not yes and not as_json
    try:
        before = earlier_answers(folder, ANSWERS)
        given = _given(flags, servers, authelia, issuer)
        if owner is not None or not before:
            given["uid"], given["gid"] = _owner(owner)
        answers, asked = complete_answers(given, before, input if terminal else None)
        secret = read_password(password_file, ask=asked)
        done = write_folder(folder, answers, secret, render=render)
    except AnswerError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print(json.dumps(_json(done, answers), indent=2))
        return DONE
    for line in _told(done, answers):
        print(line)
    return DONE


def _given(
    flags: Mapping[str, str | int | None],
    servers: tuple[str, ...],
    authelia: Path | None,
    issuer: str | None,
) -> dict[str, Any]:
    """Return the answers that were given as options."""
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if servers:
        given["servers"] = dict(map(_server, servers))
    if authelia is not None and issuer is None:
        issuer = find_issuer(authelia)
    if issuer is not None:
        given["issuer_url"] = check_issuer(issuer)
        given.setdefault("domain", domain_of(issuer))
    if flags["funnel"] is not None:
        given.setdefault("domain", flags["funnel"])
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
        "move": list(done.move),
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
    if done.move:
        yield "docker-compose.yml mounts authz.yaml as a single file: containers keep the old one"
        yield "when an editor puts a new file in its place. In this folder, once:"
        yield from (f"  {line}" for line in done.move)
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
        own = () if answers.one_name else ("auth",)
        names = " ".join(f"{each}.{answers.domain}" for each in ("mcp", *own))
        yield f"  let {names} lead to this machine (DNS, or /etc/hosts of every client)"
        yield "  trust ca.crt on the clients, or: authz certificate --install CHAIN KEY"
    else:
        yield "  trust ca.crt on the clients"
    if not answers.domain.endswith("localhost"):
        yield "  say who is told of alerts: alertmanager/alertmanager.yml"
    if answers.ours:
        yield "  docker compose up -d       (or docker-compose up -d)"
        yield "  docker compose exec authelia authelia storage user totp generate " + answers.user
        yield "      prints the otpauth:// line for the authenticator app"
    else:
        yield "  start your Authelia with authelia/authz.yml beside its own configuration; one that"
        yield '      has clients there would lose them: docs/authelia.md, "Clients of your own"'
        yield "  docker compose up -d, and let it into the network `auth` (docs/compose.md)"
    yield "  authz client-config claude              what to paste; also vscode, cursor, inspector"
