"""The step-up or approval that a refusal offers: for whom, for what, and how it is delivered.

A ticket names one person, one grant and one server; the record that it leads to holds for these
alone. The delivery depends on the client's declared capabilities and never on the decision.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from authz.core.approval import Approval, ApprovalKey
from authz.core.exact_call import ExactCall
from authz.core.mcp import INTERACTIVE, Message, MessageKind
from authz.core.policy import MODERN, StepUpFallback
from authz.core.principal import Person
from authz.core.second_factor import StepUpNeed

# The names of our questions among those of an input-required result. Their answers say only that
# the person was asked; the upstream, which sees them when the call passes, asked nothing by them.
STEP_UP_QUESTION: Final = "authz/step-up"
APPROVAL_QUESTION: Final = "authz/approval"
QUESTIONS: Final = frozenset({STEP_UP_QUESTION, APPROVAL_QUESTION})

# The one version before 2026-07-28 that knows URL elicitation (MCP 2025-11-25, "Elicitation").
ELICITING: Final = "2025-11-25"


@dataclass(frozen=True, slots=True)
class StepUpTicket:
    """What the page of a step-up shows and checks.

    Attributes:
        issuer, subject: the person who must log in.
        grant: of the front door; for a client of `login: direct` its client id.
        client: the client's name, as rules count it.
        account: the person's user name; empty where that is not known.
        server: the server's name.
        tool: the tool that was refused; None where it was not one.
        need: what the log-in must prove, and how old it may be.
        at: when the call was refused, seconds since the epoch.
        prompt, resource: the prompt or the resource's URI that was refused; empty where it was not
            one.
        ends_at, document_host: as `LoginRecord` has them, so that the page describes the client as
            the consent page did; empty for a client of `login: direct`.
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
    ends_at: str = ""
    document_host: str = ""
    prompt: str = ""
    resource: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """Hold what a person is asked to approve.

    Attributes:
        ticket: who is asked, for which tool, and what the log-in on the page must prove.
        approval: what is asked for.
        call: the exact call; None where the tool is approved for a time.
        steps_up: whether a step-up is missing too, which the same log-in proves.
    """

    ticket: StepUpTicket
    approval: Approval
    call: ExactCall | None
    steps_up: bool = False

    @property
    def key(self) -> ApprovalKey:
        """Return what the approval is recorded for."""
        ticket = self.ticket
        return ApprovalKey(
            Person(ticket.issuer, ticket.subject),
            ticket.grant,
            ticket.server,
            ticket.tool or "",
            self.approval,
            ticket.need,
            None if self.call is None else self.call.digest,
        )


class StepUpDelivery(Enum):
    """How a step-up is delivered to a client."""

    INPUT_REQUIRED = "input_required"  # MCP 2026-07-28: a result that asks for input, once
    URL_ELICITATION = "url_elicitation"  # MCP 2025-11-25: error -32042
    CHALLENGE = "challenge"  # RFC 9470
    WORDS = "words"


@dataclass(frozen=True, slots=True)
class StepUpPrompt:
    """Hold a step-up or an approval as it is told to a client.

    Attributes:
        link: where the person goes.
        delivery: how that is said.
        approves: whether the page asks for an approval.
    """

    link: str
    delivery: StepUpDelivery
    approves: bool = False


def needs_session_capabilities(message: Message | None) -> bool:
    """Tell whether the delivery depends on what the client declared when its session began."""
    return (
        message is not None
        and message.kind is MessageKind.REQUEST
        and message.version == ELICITING
        # A client cannot elicit before its capabilities are agreed upon.
        and message.method != "initialize"
    )


def step_up_delivery(
    message: Message | None, mode: StepUpFallback, *, declared: bool
) -> StepUpDelivery:
    """Return how a step-up is delivered to the sender of a message.

    Args:
        message: what was refused; None for a stream.
        mode: the operator's choice for clients that show no links.
        declared: what `initialize` declared, where `needs_session_capabilities`.
    """
    if needs_session_capabilities(message) and declared:
        return StepUpDelivery.URL_ELICITATION
    if message is not None and message.version == MODERN and message.elicits_url:
        # A request that goes on from an earlier result was asked already; or its state is the
        # upstream's, and would be lost with a result of ours.
        asked = message.is_continuation or message.method not in INTERACTIVE
        return StepUpDelivery.WORDS if asked else StepUpDelivery.INPUT_REQUIRED
    return StepUpDelivery.CHALLENGE if mode is StepUpFallback.CHALLENGE else StepUpDelivery.WORDS
