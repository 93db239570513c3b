"""Render envoy/ from envoy/authz.yaml, or say with `--check` what is stale.

Law: the example in the repository is what `authz envoy-config` prints for the file beside it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from authz.config.load import load
from authz.envoy.render import Topology, render

FOLDER: Final = Path(__file__).resolve().parent.parent / "envoy"


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` exit with 1 where one is stale."""
    settings = load(FOLDER / "authz.yaml", {}, secrets=False)
    stale = {
        name: text
        for name, text in render(settings, Topology()).items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text("utf-8") != text
    }
    for name, text in stale.items():
        if "--check" in arguments:
            print(f"envoy/{name} is stale: make example")
        else:
            (FOLDER / name).write_text(text, "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
