"""Findings: what is so or wrong, how severe it is, and what fixes it.

Invariant: text from elsewhere is quoted, short and printable (tests/doctor/test_hostile.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
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
        message: what is so, or is wrong.
        fix: which line of whose configuration to change; empty where nothing has to be.
    """

    part: str
    diagnosis: str
    severity: Severity
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return a line, and a second one where there is something to fix."""
        first = f"{self.severity.value:<8} {self.part:<8} {self.message}"
        return f"{first}\n{'':<18}mend: {self.fix}" if self.fix else first

    def to_json(self) -> dict[str, str]:
        """Return the members as JSON values."""
        return {
            "part": self.part,
            "diagnosis": self.diagnosis,
            "severity": self.severity.value,
            "words": self.message,
            "mend": self.fix,
        }


def ok(part: str, diagnosis: str, message: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(part, diagnosis, Severity.OK, message)


def note(part: str, diagnosis: str, message: str, fix: str = "") -> Finding:
    """Return a finding that a person should know."""
    return Finding(part, diagnosis, Severity.NOTE, message, fix)


def warning(part: str, diagnosis: str, message: str, fix: str = "") -> Finding:
    """Return a finding that a person should look at."""
    return Finding(part, diagnosis, Severity.WARNING, message, fix)


def problem(part: str, diagnosis: str, message: str, fix: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(part, diagnosis, Severity.PROBLEM, message, fix)


def enumerated(values: Iterable[str]) -> str:
    """Return texts from elsewhere in quotes, each once, or `none`."""
    return ", ".join(quoted(value) for value in sorted(set(values))) or "none"


def has_problems(findings: Iterable[Finding]) -> bool:
    """Tell whether there is a problem among them."""
    return any(finding.severity is Severity.PROBLEM for finding in findings)
