"""`authz authelia-config`: the part of Authelia's configuration that authz.yaml implies."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from authz.authelia import implied
from authz.cli.common import DONE, FAILED, command, config_argument, print_problems
from authz.config.key_files import make_key, public_half
from authz.config.load import load
from authz.config.model import Config

_EXAMPLES = """\
examples:
  authz authelia-config authz.yaml > authz.yml
  authelia --config configuration.yml,authz.yml
  authz authelia-config authz.yaml --make-key     also makes the private keys that it names
"""
_FIELDS = {"front_door": "front_door.key_file", "introspection": "issuer.introspection.key_file"}
_FILES = " or ".join(_FIELDS.values())


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "print the part of Authelia's configuration that authz.yaml implies"
    parser = command(commands, "authelia-config", words, run, _EXAMPLES)
    config_argument(parser)
    parser.add_argument("--json", action="store_true", help="the values as JSON, without comments")
    parser.add_argument(
        "--make-key",
        action="store_true",
        help=f"make {_FILES} where there is none (P-256, mode 600)",
    )


def _key_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the private keys that authz.yaml names, by what they are for."""
    introspection = config.issuer.introspection
    if introspection is not None and introspection.key_file is not None:
        yield "introspection", Path(introspection.key_file)
    if config.front_door is not None:
        yield "front_door", Path(config.front_door.key_file)


def run(arguments: argparse.Namespace) -> int:
    """Print it; a private key is made only where one is asked for, and never printed."""
    settings = load(arguments.config, os.environ, secrets=False)
    files = dict(_key_files(settings.config))
    if not arguments.json:
        print_problems(settings.warnings)
    if arguments.make_key:
        if not files:
            print(f"authz: authz.yaml has no {_FILES}", file=sys.stderr)
            return FAILED
        for name, file in files.items():
            try:
                make_key(file)
            except OSError as error:
                words = f"{_FIELDS[name]} cannot be made at {file}: {error.strerror}"
                print(f"authz: {words}; make its folder, or write another path", file=sys.stderr)
                return FAILED
    halves = {name: public_half(file) for name, file in files.items()}
    result = implied(settings.config, halves.get("introspection"), halves.get("front_door"))
    print(result.json() if arguments.json else result.yaml(), end="")
    return DONE
