"""What the tests of this room share."""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from authz.setup.answers import Answers
from authz.setup.write import Written, write

ANSWERS = Answers(domain="home.example.com", user="john")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its mode and bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def authelia_configuration(folder: Path) -> Any:
    """Authelia's own file, whose template filter runs before its reader of YAML."""
    text = (folder / "authelia/configuration.yml").read_text()
    plain = re.sub(r"\{\{.*?\}\}", "'template'", text)
    return json.loads(json.dumps(YAML(typ="safe").load(plain)))


def make(folder: Path, answers: Answers = ANSWERS, password: str | None = None) -> Written:
    return write(folder, answers, password)
