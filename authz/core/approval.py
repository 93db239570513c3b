"""Approvals: what a rule asks for before a tool is called, and the record that answers it.

Invariant: of several rules the strictest counts (tests/core/test_approval.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from authz.core.principal import Person
from authz.core.second_factor import StepUpNeed


@dataclass(frozen=True, slots=True)
class Approval:
    """Ask that a person approves a call of a tool, on a page of ours.

    Attributes:
        lifetime: seconds for which the tool is approved, whatever its arguments; None where each
            call is approved by itself, once.
    """

    lifetime: int | None = None

    def __post_init__(self) -> None:
        """Refuse a lifetime that is none: ledgers could differ about it.

        Raises:
            ValueError: where it is less than a second.
        """
        if self.lifetime is not None and self.lifetime < 1:
            raise ValueError("an approval holds for a second at least")

    @property
    def each_call(self) -> bool:
        """Tell whether each call is approved by itself."""
        return self.lifetime is None


def strictest(approvals: Iterable[Approval]) -> Approval | None:
    """Return what satisfies all of them; None where there is none.

    Each call by itself is stricter than any time.
    """
    asked = tuple(approvals)
    if not asked:
        return None
    times = [each.lifetime for each in asked if each.lifetime is not None]
    return Approval(min(times)) if len(times) == len(asked) else Approval()


@dataclass(frozen=True, slots=True)
class ApprovalKey:
    """Name the record of an approval: it helps no other person, grant, server, tool or call.

    Nor does it help where more is asked for, or less: of one tool, rules may ask for different
    things of different arguments.

    Attributes:
        person: who approves, and whose call it is.
        grant: the front door's grant id; for clients of `login: direct` their client id.
        server: the server's name.
        tool: the tool's name, as called.
        approval: what was asked for.
        need: what the log-in on the page had to prove.
        call: the digest of the exact call (`authz.core.exact_call`); None for any call of the tool.
    """

    person: Person
    grant: str
    server: str
    tool: str
    approval: Approval
    need: StepUpNeed
    call: str | None = None
