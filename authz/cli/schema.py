"""`authz schema`: the JSON Schema of authz.yaml, for editors."""

from authz.cli.common import DONE, command
from authz.config.schema import schema_text

_EXAMPLES = """\
example:
  authz schema > authz.schema.json
  and as authz.yaml's first line:  # yaml-language-server: $schema=./authz.schema.json
"""


@command("schema", _EXAMPLES)
def run() -> int:
    """Print the schema."""
    print(schema_text(), end="")
    return DONE
