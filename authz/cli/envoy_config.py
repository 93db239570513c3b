"""`authz envoy-config`: Envoy's whole configuration, or the pieces for an Envoy that is there."""

import argparse
import os
import sys
from pathlib import Path

from authz.cli.common import DONE, WRONG, command, config_argument, print_problems
from authz.config.load import load

_EXAMPLES = """\
examples:
  authz envoy-config authz.yaml                        print it
  authz envoy-config authz.yaml -o /etc/envoy          write envoy.yaml and what it names
  authz envoy-config authz.yaml --fragment             filter, cluster and routes alone
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = command(commands, "envoy-config", "print Envoy's configuration", run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument("--fragment", action="store_true", help="filter, cluster and routes alone")
    parser.add_argument("-o", "--output", metavar="DIR", help="write the files there")
    parser.add_argument(
        "--folder", metavar="DIR", help="where Envoy will find them (default: as --output)"
    )
    parser.add_argument(
        "--admin",
        default="/run/authz/envoy-admin.sock",
        metavar="PATH",
        help="Envoy's admin socket (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration, or write it."""
    if arguments.fragment and arguments.output is not None:
        print("authz: --fragment is printed, not written; use > FILE", file=sys.stderr)
        return WRONG
    # Rendering needs envoy-data-plane, which the service does not have.
    from authz.envoy.render import Topology, fragment, render  # noqa: PLC0415 - said above

    settings = load(arguments.config, os.environ, secrets=False)
    print_problems(settings.warnings)
    folder = arguments.folder or arguments.output
    where = Topology(admin=arguments.admin, **({"folder": folder} if folder else {}))
    if arguments.fragment:
        print(fragment(settings, where), end="")
        return DONE
    files = render(settings, where)
    if arguments.output is None:
        print("".join(_titled(name, text) for name, text in files.items()), end="")
        return DONE
    Path(arguments.output).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = Path(arguments.output) / name
        path.write_text(text)
        print(path)
    return DONE


def _titled(name: str, text: str) -> str:
    """Return a file as one document of a YAML stream, under its name."""
    return f"--- # {name}\n{text}"
