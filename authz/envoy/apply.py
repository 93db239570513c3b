"""Render a configuration anew for the Envoy that watches a folder, as a program.

`python -m authz.envoy.apply FOLDER` reads the text of authz.yaml that is in force from its standard
input, and prints what became of it as JSON. A process of its own: envoy-data-plane takes a second
and 80 MB, which a process that decides has not to spare.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from authz.config.load import read
from authz.envoy.files import RENDERED_FILE, EnvoyUpdate, replace_files
from authz.envoy.render import render_watched
from authz.envoy.render.settings import topology_of


def apply(folder: Path, text: str) -> EnvoyUpdate:
    """Write what a configuration implies, for the parts that `rendered.json` names.

    Raises:
        ConfigError: where the text has an error.
        OSError: where a file cannot be read or written.
        ValueError: where nobody has rendered into the folder before.
    """
    where = topology_of((folder / RENDERED_FILE).read_text("utf-8"))
    files = render_watched(read(text, "authz.yaml", {}, secrets=False, authorities=True), where)
    return replace_files(folder, files, Path(where.stats) if where.stats else None)


def main() -> int:
    """Apply what comes in, and print the outcome."""
    print(json.dumps(asdict(apply(Path(sys.argv[1]), sys.stdin.read()))))  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
