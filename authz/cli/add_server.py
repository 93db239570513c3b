"""`authz add-server`: write a server into authz.yaml, and say what remains to be done."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from authz.cli.common import (
    DONE,
    CommandError,
    command,
    config_argument,
    json_option,
    print_problems,
)
from authz.setup.add_server import (
    AddedServer,
    AddServerError,
    NewServer,
    add_server,
    is_elsewhere,
)

_EXAMPLES: Final = """\
examples:
  authz add-server github http://github-mcp:8000/mcp
  authz add-server github http://github-mcp:8000/mcp deploy/authz/authz.yaml --group staff
  authz add-server github http://github-mcp:9000/mcp --replace    another URL, the rules stay
  authz add-server github http://github-mcp:8000/mcp --dry-run --json

Comments and order of authz.yaml stay. In a folder of `authz init` the compose file gets the network
that the server shares with Envoy, and Authelia's file the audience, unless somebody has edited it.
A configuration with an error is not written.
"""
_RULES: Final = (
    "say who may use it: without rules everybody who can log in may call all of its tools"
    " (docs/servers.md)"
)
_ELSEWHERE: Final = (
    "on another machine, whoever reaches the server can pretend to be anybody: identity: signed"
    ' (docs/servers.md, "On another machine"), or a firewall there that lets Envoy alone in'
)


@command("add-server", _EXAMPLES)
@click.argument("name", metavar="NAME")
@click.argument("url", metavar="URL")
@config_argument
@click.option("--scope", "scopes", multiple=True, help="That it asks for; may be repeated.")
@click.option("--group", "groups", multiple=True, help="Whose members it admits; may be repeated.")
@click.option("--replace", is_flag=True, help="Give a server that is there this URL.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be done.")
@json_option("Say what was done as JSON.")
def run(
    *,
    name: str,
    url: str,
    config: Path,
    scopes: tuple[str, ...],
    groups: tuple[str, ...],
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Add it, and tell what is next."""
    new = NewServer(name, url, scopes, groups)
    try:
        done = add_server(config, new, os.environ, replaces=replace, dry_run=dry_run)
    except AddServerError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print(json.dumps(_json(done, new, dry_run=dry_run), indent=2))
        return DONE
    print_problems(done.settings.warnings)
    word = "would write" if dry_run else "wrote"
    for path in done.texts:
        print(f"{word}  {path}")
    print(f"clients find it at {done.url}")
    print("Next:")
    for line in _next(done, new):
        print(f"  {line}")
    return DONE


def _json(done: AddedServer, new: NewServer, *, dry_run: bool) -> dict[str, object]:
    return {
        "server": new.name,
        "url": done.url,
        "upstream": new.upstream,
        "replaced": done.replaced,
        "files": [str(path) for path in done.texts],
        "restart": list(done.restarts),
        "dry_run": dry_run,
        "warnings": [problem.to_json() for problem in done.settings.warnings],
        "next": list(_next(done, new)),
    }


def _next(done: AddedServer, new: NewServer) -> Iterator[str]:
    """Yield what remains to be done, in its order."""
    if not (done.replaced or new.groups or new.scopes):
        yield _RULES
    if is_elsewhere(new.upstream) and done.settings.config.servers[new.name].identity != "signed":
        yield _ELSEWHERE
    pages = done.settings.config.front_door is not None
    if done.folder is None:
        yield (
            "a running authz takes it within seconds, and Envoy with --envoy follows; where"
            " service.watch_config is off: SIGHUP to `authz up`, or to `authz serve`"
        ) + (" and `authz pages`" * pages)
        if not done.replaced:
            yield "authz authelia-config: Authelia has to know the new audience"
        return
    if done.network and not done.replaced:
        container = "$(docker compose ps -q envoy)"
        yield (
            f"put the server into docker-compose.override.yml, with networks: [{done.network}]"
            " (docs/servers.md), and start it: docker compose up -d --no-recreate"
        )
        yield (
            f"let Envoy reach it without a restart: docker network connect"
            f" $(docker network ls -qf name=_{done.network}$) {container}"
        )
    yield "authz takes it within seconds, and Envoy follows: docker compose logs authz"
    if done.restarts:
        services = " ".join(done.restarts)
        yield f"docker compose restart {services}    for the new audience; nothing else has to be"
    elif not done.replaced:
        yield "authz init --render; docker compose restart authelia    it learns the new audience"
