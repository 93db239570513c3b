"""Approvals: what a rule asks for before a tool is called, and the record that answers it.

Invariant: of several rules the strictest counts (tests/core/test_approval.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from authz.core.principal import Person


@dataclass(frozen=True, slots=True)
class Approval:
    """Ask that a person approves a call of a tool, on a page of ours.

    Attributes:
        lifetime: seconds for which the tool is approved, whatever its arguments; None where each
            call is approved by itself, once.
    """

    lifetime: int | None = None

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

    Attributes:
        person: who approves, and whose call it is.
        grant: the front door's grant id; for clients of `login: direct` their client id.
        server: the server's name.
        tool: the tool's name, as called.
        call: the digest of the exact call (`authz.core.exact_call`); None for any call of the tool.
    """

    person: Person
    grant: str
    server: str
    tool: str
    call: str | None = None
