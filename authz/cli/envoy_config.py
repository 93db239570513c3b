"""`authz envoy-config`: Envoy's whole configuration, or the pieces for an Envoy that is there."""

import os
from dataclasses import replace
from pathlib import Path

import click

from authz.cli.common import DONE, FILE, CommandError, command, config_argument, print_problems
from authz.config.load import load

_ADMIN = "/run/authz/envoy-admin.sock"
_EXAMPLES = """\
examples:
  authz envoy-config authz.yaml                        print it
  authz envoy-config authz.yaml -o /etc/envoy          write envoy.yaml and what it names
  authz envoy-config authz.yaml --fragment             filter, cluster and routes alone
"""


@command("envoy-config", _EXAMPLES)
@config_argument
@click.option("--fragment", is_flag=True, help="Filter, cluster and routes alone.")
@click.option("-o", "--output", type=FILE, metavar="DIR", help="Write the files there.")
@click.option("--folder", metavar="DIR", help="Where Envoy will find them (default: as --output).")
@click.option(
    "--admin",
    default=_ADMIN,
    metavar="PATH",
    help=f"Envoy's admin socket (default: {_ADMIN}).",
)
def run(
    *, config: Path, fragment: bool, output: Path | None, folder: str | None, admin: str
) -> int:
    """Print the configuration, or write it."""
    if fragment and output is not None:
        raise CommandError("--fragment is printed, not written; use > FILE")
    # Rendering needs envoy-data-plane, which the service does not have.
    from authz.envoy import render  # noqa: PLC0415 - said above

    settings = load(config, os.environ, secrets=False)
    print_problems(settings.warnings)
    if folder is None and output is not None:
        folder = str(output)
    where = render.Topology(admin=admin)
    if folder:
        where = replace(where, folder=folder)
    if fragment:
        print(render.fragment(settings, where), end="")
        return DONE
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


def _titled(name: str, text: str) -> str:
    """Return a file as one document of a YAML stream, under its name."""
    return f"--- # {name}\n{text}"
