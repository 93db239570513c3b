"""A person's step-ups and approvals in Redis, as the page of that person's log-ins needs them."""

from collections.abc import Sequence
from itertools import product

from authz.core.ledger import StepUpKey
from authz.core.principal import Person
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.redis import RedisLedger
from authz.login.store.approvals import LISTED_APPROVAL
from authz.login.web.sessions import OwnGrant, OwnProof, ProofId, ProofKind
from authz.tokens.sealing import NotSealedError, Sealer


class PersonsProofs:
    """Adapt the step-ups and approvals in Redis to the page (`sessions.OwnProofs`)."""

    def __init__(
        self,
        ledger: RedisLedger,
        approvals: ApprovalRequests,
        sealer: Sealer,
        *,
        direct: Sequence[str],
        servers: Sequence[str],
    ) -> None:
        """Take Redis, what opens the list of approvals, and what the configuration names.

        Args:
            ledger: where step-ups are.
            approvals: where approvals are listed.
            sealer: opens what the list says.
            direct: the ids of the clients that log in at the issuer itself.
            servers: the names of the servers.
        """
        self._ledger = ledger
        self._approvals = approvals
        self._sealer = sealer
        self._direct = {(client, server): client for client, server in product(direct, servers)}

    async def of(self, person: Person, grants: Sequence[OwnGrant]) -> Sequence[OwnProof]:
        """Return what a person's log-ins proved and approved, the latest first."""
        # A grant that was ended takes its step-ups and approvals with it.
        clients = self._direct | {(each.grant, each.server): each.client.name for each in grants}
        keys = [StepUpKey(person, *pair) for pair in clients]
        proofs = [
            OwnProof(
                ProofId(ProofKind.STEP_UP, each.key.grant, each.key.server),
                clients[each.key.grant, each.key.server],
                each.key.server,
                each.auth_time,
            )
            for each in await self._ledger.step_ups(keys)
        ]
        for approval in await self._approvals.live(person):
            try:
                listed = LISTED_APPROVAL.open(self._sealer, approval.sealed)
            except NotSealedError:
                continue
            # The list holds another's only where somebody wrote into Redis.
            if listed.subject == person.subject and (listed.grant, listed.server) in clients:
                kind = ProofKind.CALL if listed.each_call else ProofKind.TOOL
                proofs.append(
                    OwnProof(
                        ProofId(kind, listed.grant, listed.server, approval.name),
                        listed.client,
                        listed.server,
                        listed.at,
                        listed.tool,
                        listed.until,
                    )
                )
        return sorted(proofs, key=lambda proof: proof.since, reverse=True)

    async def end(self, person: Person, proof: ProofId) -> None:
        """End one of them; nothing where it is none any more."""
        if proof.kind is ProofKind.STEP_UP:
            await self._ledger.end_step_up(StepUpKey(person, proof.grant, proof.server))
        else:
            await self._approvals.end(proof.approval)
