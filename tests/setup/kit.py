"""What the tests of the setup share."""

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from authz.setup.answers import SetupAnswers, from_json
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


def copy_written(folder: Path, answers: SetupAnswers = ANSWERS) -> None:
    """Copy what `make` writes; for tests that only read it or change it afterwards."""
    source = _written(answers.to_json())
    folder.mkdir(exist_ok=True)
    # With owners and modes, which shutil.copytree leaves out.
    subprocess.run(["cp", "-a", f"{source.name}/.", str(folder)], check=True)


@cache
def _written(answers: str) -> TemporaryDirectory[str]:
    """Return a folder that is written once for the same answers, and removed at the end.

    Under a umask that takes nothing away: its modes are those that were asked for.
    """
    folder = TemporaryDirectory()
    old = os.umask(0)
    try:
        make(Path(folder.name), SetupAnswers(**from_json(answers)))
    finally:
        os.umask(old)
    return folder
