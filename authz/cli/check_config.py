"""`authz check-config`: every mistake at once."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from authz.cli.common import (
    DONE,
    WRONG,
    command,
    config_argument,
    json_option,
    print_problems,
)
from authz.cli.compose_line import is_right_without_files, print_compose_line
from authz.config.certificates import read_certificate_file
from authz.config.load import load
from authz.config.model import Config
from authz.config.notes import notes
from authz.config.problems import ConfigError, quoted

_EXAMPLES = """\
examples:
  authz check-config
  authz check-config /etc/authz/authz.yaml --json
  authz check-config deploy --no-secrets               of a folder made by `authz init`
"""


@command("check-config", _EXAMPLES)
@config_argument
@click.option(
    "--no-secrets",
    is_flag=True,
    help="Leave secret files and the certificate unread, as for paths that are in a container.",
)
@json_option("Problems as a JSON list.")
def run(*, config: Path, no_secrets: bool, as_json: bool) -> int:
    """Print the problems; 2 where one is an error."""
    here = not no_secrets
    try:
        settings = load(config, os.environ, secrets=here, tls=here)
    except ConfigError as errors:
        print_problems(errors.problems, as_json=as_json)
        if here and not as_json and is_right_without_files(config):
            print(
                "only files that it names are in the way; where they are elsewhere, as in a"
                " container: --no-secrets",
                file=sys.stderr,
            )
            print_compose_line(click.get_current_context())
        return WRONG
    print_problems(settings.warnings, as_json=as_json)
    if not as_json:
        servers = ", ".join(settings.policy.servers)
        print(f"{config} is right: {len(settings.policy.servers)} server(s): {servers}")
        for note in notes(settings.config):
            print(f"note: {note}")
        for line in _certificate(settings.config) if here else ():
            print(line)
    return DONE


def _certificate(config: Config) -> Iterator[str]:
    """Yield whom the certificate is for, and until when; nothing where it is not here."""
    tls = config.gateway.tls
    if tls is None:
        return
    try:
        found = read_certificate_file(Path(tls.certificate))
    except (OSError, ValueError):
        return
    end = datetime.fromtimestamp(found.not_after, UTC)
    names = ", ".join(map(quoted, found.names)) or "nobody"
    yield f"certificate: for {names}, by {quoted(found.issuer)}, until {end:%Y-%m-%d}"
