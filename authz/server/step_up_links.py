"""The step-ups that refusals offer: a sealed link for the person, as the client can show it.

Invariant: a link is made for a refusal and for nothing else, so nobody can ask for a step-up that
was not refused; nothing is stored for it.
"""

from authz.core.decision import Allow, Deny
from authz.core.policy import StepUpFallback
from authz.core.step_up import (
    StepUpPrompt,
    StepUpTicket,
    needs_session_capabilities,
    step_up_delivery,
)
from authz.server.capabilities import Capabilities
from authz.tokens.sealing import Sealer
from authz.tokens.tickets import seal_ticket

PATH = "/authz/step-up"


class StepUpLinks:
    """Make links to the step-up page."""

    def __init__(self, sealer: Sealer, gateway: str) -> None:
        """Take what seals tickets, and the gateway's URL."""
        self._sealer = sealer
        self._page = f"{gateway}{PATH}?ticket="

    def link(self, ticket: StepUpTicket) -> str:
        """Return where the person goes; a sealed ticket needs no escaping in a URL."""
        return self._page + seal_ticket(self._sealer, ticket)


class StepUpOffers:
    """Say of each refusal which step-up is offered, and how its client is told."""

    def __init__(
        self, links: StepUpLinks, capabilities: Capabilities, mode: StepUpFallback
    ) -> None:
        """Take what makes links, what knows clients, and what the operator wants."""
        self._links = links
        self._capabilities = capabilities
        self._mode = mode

    def admitted(self, allow: Allow) -> None:
        """Remember what a client that may begin a session declared; return at once."""
        message = allow.message
        if message is not None and message.method == "initialize":
            self._capabilities.hear(allow.principal, elicits=message.elicits_url)

    async def offer(self, deny: Deny) -> StepUpPrompt | None:
        """Return the step-up that a refusal offers; None where it offers none."""
        if deny.step_up is None or deny.principal is None:
            return None
        declared = needs_session_capabilities(deny.message) and await self._capabilities.elicits(
            deny.principal
        )
        how = step_up_delivery(deny.message, self._mode, declared=declared)
        return StepUpPrompt(self._links.link(deny.step_up), how)

    async def aclose(self) -> None:
        """End what is under way."""
        await self._capabilities.aclose()
