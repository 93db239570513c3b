"""`authz authelia-config`: the part of Authelia's configuration that authz.yaml implies."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from authz.authelia import implied
from authz.cli.common import (
    DONE,
    FAILED,
    CommandError,
    command,
    config_argument,
    json_option,
    print_problems,
)
from authz.config import key_files
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


def _key_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the private keys that authz.yaml names, by what they are for."""
    introspection = config.issuer.introspection
    if introspection is not None and introspection.key_file is not None:
        yield "introspection", Path(introspection.key_file)
    if config.front_door is not None:
        yield "front_door", Path(config.front_door.key_file)


@command("authelia-config", _EXAMPLES)
@config_argument
@json_option("The values as JSON, without comments.")
@click.option(
    "--make-key", is_flag=True, help=f"Make {_FILES} where there is none (P-256, mode 600)."
)
def run(*, config: Path, as_json: bool, make_key: bool) -> int:
    """Print it; a private key is made only where one is asked for, and never printed."""
    settings = load(config, os.environ, secrets=False)
    files = dict(_key_files(settings.config))
    if not as_json:
        print_problems(settings.warnings)
    if make_key:
        _make_keys(files)
    halves = {name: key_files.public_half(file) for name, file in files.items()}
    result = implied(settings.config, halves.get("introspection"), halves.get("front_door"))
    print(result.json() if as_json else result.yaml(), end="")
    return DONE


def _make_keys(files: Mapping[str, Path]) -> None:
    if not files:
        raise CommandError(f"authz.yaml has no {_FILES}", FAILED)
    for name, file in files.items():
        try:
            key_files.make_key(file)
        except OSError as error:
            message = f"{_FIELDS[name]} cannot be made at {file}: {error.strerror}"
            raise CommandError(
                f"{message}; make its folder, or write another path", FAILED
            ) from None
