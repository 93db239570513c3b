"""What the tests of this room share."""

from pathlib import Path

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


def make(folder: Path, answers: Answers = ANSWERS, password: str | None = None) -> Written:
    return write(folder, answers, password)
