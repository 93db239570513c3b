"""What the tests of this room share."""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from authz.setup.answers import SetupAnswers
from authz.setup.write import SetupResult, write_folder

ANSWERS = SetupAnswers(domain="home.example.com", user="john")


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


def make(folder: Path, answers: SetupAnswers = ANSWERS, password: str | None = None) -> SetupResult:
    return write_folder(folder, answers, password)
