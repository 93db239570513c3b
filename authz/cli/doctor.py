"""`authz doctor`: what is wrong with a deployment, and which line mends it."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Final

import click

from authz.cli.common import (
    DONE,
    FAILED,
    FILE,
    command,
    config_argument,
    json_option,
    read_token_file,
    state_option,
)
from authz.config.addresses import AddressError, read_tcp
from authz.config.load import Settings, load
from authz.config.location import init_folder
from authz.config.problems import ConfigError
from authz.doctor.finding import Finding, Severity, has_problems
from authz.doctor.outside import examine as examine_outside
from authz.doctor.outside_http import OutsideClient
from authz.doctor.run import DoctorOptions, examine, examine_host
from authz.local.redis_location import as_its_service
from authz.local.state import State, default_folder

TOKEN: Final = "AUTHZ_TOKEN"  # noqa: S105 - the variable's name
_ADMIN: Final = Path("/run/authz/envoy-admin.sock")
_EXAMPLES: Final = """\
examples:
  authz doctor authz.yaml
  authz doctor authz.yaml --token-file -           reads a token from standard input
  authz doctor deploy                              on the host of a folder of `authz init`
  docker compose run --rm doctor                   there, all of it
  AUTHZ_TOKEN=… authz doctor authz.yaml --json
  authz doctor --outside https://mcp.example.com/files    what a hosted assistant sees; from
                                                   another network, without authz.yaml
A token is never an argument: every user of a machine may read those.
exit status: 0 no problems, 1 problems, 2 asked wrongly (arguments or authz.yaml)
"""


@command("doctor", _EXAMPLES)
@config_argument
@json_option("Findings as a JSON list.")
@click.option(
    "--token-file",
    "token_files",
    multiple=True,
    metavar="FILE",
    help=f"An access token to look at, - for standard input (or {TOKEN}); may be repeated.",
)
@click.option(
    "--envoy-admin",
    type=FILE,
    metavar="PATH",
    help=f"Envoy's admin socket (default: that of `authz up`, else {_ADMIN}).",
)
@state_option
@click.option(
    "--no-log-in", is_flag=True, help="Do not let each client begin a log-in at Authelia."
)
@click.option(
    "--client-id",
    "client_ids",
    multiple=True,
    metavar="URL",
    help="A client's metadata document to look at; may be repeated.",
)
@click.option(
    "--no-documents",
    is_flag=True,
    help="Do not try whether metadata documents of known assistants can be fetched.",
)
@click.option("--no-gateway", is_flag=True, help="Do not ask the gateway's public URLs.")
@click.option("--no-servers", is_flag=True, help="Do not ask the MCP servers for their tools.")
@click.option(
    "--beside-envoy",
    is_flag=True,
    help="This machine reaches what Envoy reaches: a server that it cannot reach is a problem.",
)
@click.option(
    "--gateway-at",
    metavar="HOST:PORT",
    help="Where the gateway is reached from here, asked under its public names.",
)
@click.option(
    "--outside",
    metavar="URL",
    help="Look at a server's public URL as an assistant on the Internet does, and at nothing else.",
)
@click.option("--private", is_flag=True, help="With --outside: connect to private addresses, too.")
def run(
    *,
    config: Path,
    as_json: bool,
    token_files: tuple[str, ...],
    envoy_admin: Path | None,
    state: Path | None,
    no_log_in: bool,
    client_ids: tuple[str, ...],
    no_documents: bool,
    no_gateway: bool,
    no_servers: bool,
    beside_envoy: bool,
    gateway_at: str | None,
    outside: str | None,
    private: bool,
) -> int:
    """Look, and print what was found."""
    if outside is not None:
        client = OutsideClient(private=private)
        return _finish(asyncio.run(examine_outside(outside, client)), as_json=as_json)
    if private:
        raise click.UsageError("--private is for --outside")
    tokens = [os.environ[TOKEN]] if os.environ.get(TOKEN) else []
    tokens += map(read_token_file, token_files)
    try:
        place = None if gateway_at is None else read_tcp("--gateway-at", gateway_at)
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    settings, is_host = _load(config)
    folder = state or default_folder(config)
    beside = State(folder.absolute()).socket("admin")
    options = DoctorOptions(
        path=config,
        admin=envoy_admin or (beside if beside.is_socket() else _ADMIN),
        admin_named=envoy_admin is not None,
        tokens=tuple(tokens),
        probe_clients=not no_log_in,
        ask_gateway=not no_gateway,
        ask_servers=not no_servers,
        beside_envoy=beside_envoy,
        documents=None if no_documents else client_ids,
        gateway_at=None if place is None else (place.host, place.port),
    )
    if is_host:
        findings = examine_host(settings, options)
    else:
        env = as_its_service(settings, os.environ, folder)
        findings = asyncio.run(examine(settings, options, env))
    return _finish(findings, as_json=as_json)


def _finish(findings: list[Finding], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        _print(findings)
    return FAILED if has_problems(findings) else DONE


def _load(config: Path) -> tuple[Settings, bool]:
    """Return the settings, and whether this is the host of containers that alone have the secrets.

    Raises:
        ConfigError: where authz.yaml is wrong, or a secret is missing that ought to be here.
    """
    try:
        return load(config, os.environ), False
    except ConfigError:
        if init_folder(config.parent) is None:
            raise
        return load(config, os.environ, secrets=False), True


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        print(finding)
    counts = Counter(finding.severity for finding in findings)
    print(f"{counts[Severity.PROBLEM]} problem(s), {counts[Severity.WARNING]} warning(s)")
