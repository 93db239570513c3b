"""Problems of a configuration: file, line and field, what is wrong, what would be right.

Invariant: a problem never repeats a secret (tests/config/test_hostile.py): what follows `//` and
ends in `@` in a URL is not shown, nor is any other value where a password may have been pasted.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Final

Path = tuple[str | int, ...]
"""Where a value stands: keys and list indexes from the top of the file."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_*?-]+\Z")
_USERINFO: Final = re.compile(r"//.*@", re.DOTALL)
_LONGEST: Final = 60


class ProblemSeverity(Enum):
    """Tell whether the service starts all the same."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Fault:
    """State a problem by its place in the document, before the place has a line.

    Attributes:
        path: where it is.
        wrong: what is wrong, without the field.
        right: what would be right, beginning with a verb.
        severity: an error stops the service, a warning does not.
        on_key: whether the key itself is wrong rather than its value.
        reads: the other places that the finding rests on; where one of them is broken itself,
            the finding could be false and is kept back.
    """

    path: Path
    wrong: str
    right: str
    severity: ProblemSeverity = ProblemSeverity.ERROR
    on_key: bool = False
    reads: tuple[Path, ...] = ()


def error(path: Path, wrong: str, right: str, *reads: Path, on_key: bool = False) -> Fault:
    """Return a fault that stops the service; `reads` as in `Fault`."""
    return Fault(path, wrong, right, ProblemSeverity.ERROR, on_key, reads)


def warning(path: Path, wrong: str, right: str, *reads: Path) -> Fault:
    """Return a fault that does not stop the service; `reads` as in `Fault`."""
    return Fault(path, wrong, right, ProblemSeverity.WARNING, reads=reads)


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """State a problem as it is printed; line and column count from 1, 0 where there is none."""

    file: str
    line: int
    column: int
    field: str
    wrong: str
    right: str
    severity: ProblemSeverity = ProblemSeverity.ERROR

    def __str__(self) -> str:
        """Return one line: file, line, field, what is wrong; what would be right."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        mark = "warning: " if self.severity is ProblemSeverity.WARNING else ""
        field = f"{self.field}: " if self.field else ""
        return f"{place}: {mark}{field}{self.wrong}; {self.right}"

    def to_json(self) -> dict[str, object]:
        """Return the members as JSON values, for editors and scripts."""
        return asdict(self) | {"severity": self.severity.value}


class ConfigError(Exception):
    """Say that a configuration cannot be used.

    Attributes:
        problems: every error and warning, in the order of the file.
    """

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        """Keep all problems; the first is worth no more than the others."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def to_json(self) -> list[dict[str, object]]:
        """Return the problems as JSON values."""
        return [problem.to_json() for problem in self.problems]


class WrongValueError(ValueError):
    """Carry what is wrong with one value, and what would be right, out of a parser."""

    def __init__(self, wrong: str, right: str) -> None:
        """Keep both halves of the sentence."""
        super().__init__(wrong)
        self.wrong = wrong
        self.right = right


def field_name(path: Path) -> str:
    """Return a path as a person writes it: `servers.files.limits[0].rate`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.match(part):
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def quoted(text: str) -> str:
    """Return a text in quotes, printable, short, and without what a URL says before its `@`."""
    clean = _USERINFO.sub("//***@", text)
    if len(clean) > _LONGEST:
        clean = clean[: _LONGEST - 3] + "..."
    return json.dumps(clean)


def shown(value: object) -> str:
    """Return a value of the document as it can stand in a sentence."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return "nothing"


def listed(words: Iterable[str], joint: str = "or") -> str:
    """Return words as an enumeration: `a, b or c`."""
    *front, last = words
    return f"{', '.join(front)} {joint} {last}" if front else last
