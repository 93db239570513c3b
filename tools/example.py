"""Render envoy/ and docker-compose.yml, or say with `--check` what is stale.

envoy/ is what `authz envoy-config` prints for the authz.yaml beside it; docker-compose.yml is what
`authz init deploy` writes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from authz.config.load import load
from authz.envoy.render import Topology, render
from authz.setup.answers import SetupAnswers
from authz.setup.write import compose_text

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = "envoy"
COMPOSE: Final = "docker-compose.yml"


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` exit with 1 where one is stale."""
    settings = load(ROOT / FOLDER / "authz.yaml", {}, secrets=False)
    texts = {f"{FOLDER}/{name}": text for name, text in render(settings, Topology()).items()}
    texts[COMPOSE] = compose_text(SetupAnswers("example.com"), "./deploy")
    stale = {
        name: text
        for name, text in texts.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text("utf-8") != text
    }
    for name, text in stale.items():
        if "--check" in arguments:
            print(f"{name} is stale: make example")
        else:
            (ROOT / name).write_text(text, "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
