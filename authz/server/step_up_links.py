"""The step-ups and approvals that refusals offer: a link for the person, as the client can show it.

Invariant: a link is made for a refusal and for nothing else, so nobody can ask for a step-up that
was not refused. Nothing is stored for a step-up; of an approval Redis keeps what is asked, sealed.
"""

from authz.core.decision import Allow, Deny
from authz.core.policy import StepUpFallback
from authz.core.step_up import (
    ApprovalRequest,
    StepUpDelivery,
    StepUpPrompt,
    StepUpTicket,
    needs_session_capabilities,
    step_up_delivery,
)
from authz.ledger.approval_requests import ApprovalRequests
from authz.server.capabilities import Capabilities
from authz.tokens.approval_requests import seal_name, seal_request
from authz.tokens.sealing import Sealer
from authz.tokens.tickets import seal_ticket

PATH = "/authz/step-up"
APPROVAL_PATH = "/authz/approval"


class StepUpLinks:
    """Make links to the step-up page."""

    def __init__(self, sealer: Sealer, gateway: str) -> None:
        """Take what seals tickets, and the gateway's URL."""
        self._sealer = sealer
        self._page = f"{gateway}{PATH}?ticket="

    def link(self, ticket: StepUpTicket) -> str:
        """Return where the person goes; a sealed ticket needs no escaping in a URL."""
        return self._page + seal_ticket(self._sealer, ticket)


class ApprovalLinks:
    """Keep what is to be approved, and make links to its page."""

    def __init__(self, sealer: Sealer, gateway: str, requests: ApprovalRequests) -> None:
        """Take what seals requests, the gateway's URL, and where requests are kept."""
        self._sealer = sealer
        self._page = f"{gateway}{APPROVAL_PATH}?ticket="
        self._requests = requests

    async def link(self, request: ApprovalRequest) -> str:
        """Return where the person goes.

        Raises:
            UnavailableError: where Redis did not keep the request.
        """
        name = await self._requests.keep(request.key, seal_request(self._sealer, request))
        return self._page + seal_name(self._sealer, name)


class StepUpOffers:
    """Say of each refusal which step-up or approval is offered, and how its client is told."""

    def __init__(
        self,
        links: StepUpLinks,
        capabilities: Capabilities,
        mode: StepUpFallback,
        approvals: ApprovalLinks,
    ) -> None:
        """Take what makes links, what knows clients, and what the operator wants."""
        self._links = links
        self._approvals = approvals
        self._capabilities = capabilities
        self._mode = mode

    def admitted(self, allow: Allow) -> None:
        """Remember what a client that may begin a session declared; return at once."""
        message = allow.message
        if message is not None and message.method == "initialize":
            self._capabilities.hear(allow.principal, elicits=message.elicits_url)

    async def offer(self, deny: Deny) -> StepUpPrompt | None:
        """Return the step-up or approval that a refusal offers; None where it offers none.

        Where both are missing, the page of the approval does both.

        Raises:
            UnavailableError: where Redis did not keep what is to be approved.
        """
        if deny.principal is None or (deny.step_up is None and deny.approval is None):
            return None
        declared = needs_session_capabilities(deny.message) and await self._capabilities.elicits(
            deny.principal
        )
        how = step_up_delivery(deny.message, self._mode, declared=declared)
        if deny.approval is not None:
            # RFC 9470 tells a client to log in again, which approves nothing.
            how = StepUpDelivery.WORDS if how is StepUpDelivery.CHALLENGE else how
            return StepUpPrompt(await self._approvals.link(deny.approval), how, approves=True)
        return None if deny.step_up is None else StepUpPrompt(self._links.link(deny.step_up), how)

    async def aclose(self) -> None:
        """End what is under way."""
        await self._capabilities.aclose()
