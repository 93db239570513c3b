"""`authz envoy-config`: files that Envoy watches, one static file, or pieces for another Envoy."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from authz.cli.common import (
    DONE,
    FAILED,
    FILE,
    CommandError,
    command,
    config_argument,
    print_problems,
)
from authz.config.addresses import AddressError, read_address, read_tcp, worker_addresses
from authz.config.endpoints import Tcp, Unix
from authz.config.load import Settings, load
from authz.envoy.files import STATS_SOCKET

_ADMIN = "/run/authz/envoy-admin.sock"
_LOOPBACK = {"127.0.0.1", "::1", "[::1]"}
_EXAMPLES = """\
examples:
  authz envoy-config authz.yaml -o /etc/envoy          write files that Envoy watches
  authz envoy-config authz.yaml -o /etc/envoy --static one file, read at Envoy's start alone
  authz envoy-config authz.yaml                        print that one file
  authz envoy-config authz.yaml --fragment             filter, cluster and routes alone

Start Envoy with: envoy -c /etc/envoy/envoy.yaml --reject-unknown-dynamic-fields
Run it again after a change: nothing has to be restarted, and no request fails. `authz serve
--envoy /etc/envoy` does it at each reload.
"""


@command("envoy-config", _EXAMPLES)
@config_argument
@click.option("--fragment", is_flag=True, help="Filter, cluster and routes alone.")
@click.option("-o", "--output", type=FILE, metavar="DIR", help="Write the files there.")
@click.option("--static", is_flag=True, help="Into one file, which Envoy does not watch.")
@click.option("--folder", metavar="DIR", help="Where Envoy will find them (default: as --output).")
@click.option(
    "--admin",
    default=_ADMIN,
    metavar="PATH",
    help=f"Envoy's admin socket (default: {_ADMIN}).",
)
@click.option(
    "--stats",
    default=STATS_SOCKET,
    metavar="PATH",
    help=f"The socket at which Envoy says what it has taken (default: {STATS_SOCKET}).",
)
@click.option(
    "--replica",
    "replicas",
    multiple=True,
    metavar="ADDRESS",
    help="Where a further replica answers Check, besides service.check; may be repeated.",
)
@click.option(
    "--check",
    metavar="ADDRESS",
    help="Where Envoy reaches Check, in place of service.check; a name with several addresses"
    " leads to all of them.",
)
@click.option(
    "--pages",
    "pages",
    multiple=True,
    metavar="ADDRESS",
    help="Where Envoy reaches the pages, in place of service.pages; may be repeated.",
)
@click.option(
    "--scrape", metavar="ADDRESS", help="Where Prometheus and probes ask Envoy (HOST:PORT)."
)
@click.option(
    "--drain",
    metavar="ADDRESS",
    help="A loopback address: POST /healthcheck/fail there has Envoy close its connections.",
)
def run(
    *,
    config: Path,
    fragment: bool,
    output: Path | None,
    static: bool,
    folder: str | None,
    admin: str,
    stats: str,
    replicas: tuple[str, ...],
    check: str | None,
    pages: tuple[str, ...],
    scrape: str | None,
    drain: str | None,
) -> int:
    """Print the configuration, or write it."""
    if fragment and output is not None:
        raise CommandError("--fragment is printed, not written; use > FILE")
    # Rendering needs envoy-data-plane, which the service does not have.
    from authz.envoy import render  # noqa: PLC0415 - said above

    settings = load(config, os.environ, secrets=False, authorities=True)
    print_problems(settings.warnings)
    if folder is None and output is not None:
        folder = str(output.absolute())
    try:
        further = tuple(read_address("--replica", each) for each in replicas)
        listening = None if drain is None else read_tcp("--drain", drain)
        where = render.Topology(
            admin=admin,
            authz=() if check is None else _workers(settings, check, further),
            replicas=further,
            pages=tuple(read_address("--pages", each) for each in pages),
            scrape=None if scrape is None else read_tcp("--scrape", scrape),
            drain=listening,
        )
    except AddressError as error:
        raise CommandError(str(error)) from None
    if listening is not None and listening.host not in _LOOPBACK:
        raise CommandError(
            "--drain: write an address of 127.0.0.1 or [::1]: whoever reaches it"
            " can empty this Envoy"
        )
    if folder:
        where = replace(where, folder=folder)
    if fragment:
        print(render.fragment(settings, where), end="")
        return DONE
    if output is not None and not static:
        files = render.render_watched(settings, replace(where, stats=stats))
        return _write(output, files, Path(stats))
    files = render.render(settings, where)
    if output is None:
        print("".join(_titled(name, text) for name, text in files.items()), end="")
        return DONE
    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = output / name
        path.write_text(text)
        print(path)
    return DONE


def _workers(
    settings: Settings, check: str, further: tuple[Tcp | Unix, ...]
) -> tuple[Tcp | Unix, ...]:
    """Return where every worker answers.

    Raises:
        AddressError: where that is no address.
    """
    workers = settings.config.service.workers
    places = (read_address("--check", check), *further)
    return tuple(each for place in places for each in worker_addresses(place, workers))


def _write(output: Path, files: dict[str, str], stats: Path) -> int:
    """Have a running Envoy follow, and print what changed."""
    from authz.envoy.files import replace_files  # noqa: PLC0415 - as above

    done = replace_files(output, files, stats)
    if done.refused:
        print(
            f"Envoy refused {output / done.refused} and goes on as before; its log says why. All"
            " files are what they were",
            file=sys.stderr,
        )
        return FAILED
    for name in done.changed:
        print(output / name)
    if done.restart:
        print("restart Envoy: envoy.yaml changed, which it reads at its start", file=sys.stderr)
    return DONE


def _titled(name: str, text: str) -> str:
    """Return a file as one document of a YAML stream, under its name."""
    return f"--- # {name}\n{text}"
