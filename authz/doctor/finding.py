"""What the doctor says.

Law: a problem names what is wrong and the line that mends it; what comes from elsewhere is quoted,
short and printable.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum

from authz.config.problems import quoted


class Severity(Enum):
    """Tell what a finding means for the exit status: a problem is the only one that counts."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """State one thing.

    Attributes:
        part: what was looked at: issuer, clients, token, redis, envoy, files.
        diagnosis: a stable name, snake_case.
        severity: what it means.
        words: what is so, or is wrong.
        mend: which line of whose configuration mends it; empty where there is nothing to mend.
    """

    part: str
    diagnosis: str
    severity: Severity
    words: str
    mend: str = ""

    def __str__(self) -> str:
        """Return a line, and a second one where there is something to mend."""
        first = f"{self.severity.value:<8} {self.part:<8} {self.words}"
        return f"{first}\n{'':<18}mend: {self.mend}" if self.mend else first

    def to_json(self) -> dict[str, str]:
        """Return the members as JSON values."""
        return asdict(self) | {"severity": self.severity.value}


def ok(part: str, diagnosis: str, words: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(part, diagnosis, Severity.OK, words)


def note(part: str, diagnosis: str, words: str, mend: str = "") -> Finding:
    """Return a finding that a person should know."""
    return Finding(part, diagnosis, Severity.NOTE, words, mend)


def warning(part: str, diagnosis: str, words: str, mend: str = "") -> Finding:
    """Return a finding that a person should look at."""
    return Finding(part, diagnosis, Severity.WARNING, words, mend)


def problem(part: str, diagnosis: str, words: str, mend: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(part, diagnosis, Severity.PROBLEM, words, mend)


def enumerated(values: Iterable[str]) -> str:
    """Return texts from elsewhere in quotes, each once, or `none`."""
    return ", ".join(quoted(value) for value in sorted(set(values))) or "none"


def has_problems(findings: Iterable[Finding]) -> bool:
    """Tell whether there is a problem among them."""
    return any(finding.severity is Severity.PROBLEM for finding in findings)
