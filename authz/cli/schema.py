"""`authz schema`: the JSON Schema of authz.yaml, for editors."""

import argparse

from authz.cli.common import DONE, command
from authz.config.schema import schema_text

_EXAMPLES = """\
example:
  authz schema > authz.schema.json
  and as authz.yaml's first line:  # yaml-language-server: $schema=./authz.schema.json
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    command(commands, "schema", "print the JSON Schema of authz.yaml", run, _EXAMPLES)


def run(_: argparse.Namespace) -> int:
    """Print the schema."""
    print(schema_text(), end="")
    return DONE
