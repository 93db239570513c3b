"""A step-up that a refusal offers: whose it would be, for what, and until when.

Law: it names one person, one grant and one server; what it leads to is recorded for these alone.
"""

from dataclasses import dataclass

from authz.core.second_factor import StepUpNeed


@dataclass(frozen=True, slots=True)
class StepUpTicket:
    """Hold what the page of a step-up is about.

    Attributes:
        issuer, subject: the person who must log in.
        grant: of the front door; for a client of `login: direct` its client id.
        client: the client's name, as rules count it.
        account: what the person is called; empty where that is not known.
        server: the server's name.
        tool: the tool that was refused; None where it was not one.
        need: what the log-in must prove, and how old it may be.
        at: when the call was refused, seconds since the epoch.
    """

    issuer: str
    subject: str
    grant: str
    client: str
    account: str
    server: str
    tool: str | None
    need: StepUpNeed
    at: int
