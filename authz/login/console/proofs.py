"""Step-ups and approvals: what waits for a person, and what lives, ended here."""

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.principal import Person
from authz.core.step_up import ApprovalRequest
from authz.ledger.approval_requests import ApprovalRequests
from authz.login.console.access import AdmittedPerson, ConsoleAccess
from authz.login.console.actions import (
    ActionKind,
    ActionOutcome,
    ConsoleAction,
    ConsoleActions,
    Operator,
    Performer,
    done,
)
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.console.log_ins import cursor_of, query_of
from authz.login.store.grants import GrantStore
from authz.login.store.people import PeopleStore
from authz.login.web.sessions import OwnGrants, OwnProof, OwnProofs, ProofId, ProofKind
from authz.tokens.approval_requests import open_request
from authz.tokens.sealing import NotSealedError, Sealer

_PEOPLE: Final = 25
_ROWS: Final = 100
_WAITING: Final = 25


@dataclass(frozen=True, slots=True)
class _ShownProof:
    proof: OwnProof
    account: str
    end: str


@dataclass(frozen=True, slots=True)
class ProofSources:
    """Hold where step-ups and approvals are.

    Attributes:
        grants, people: who is logged in.
        own_grants, proofs: of one person.
        requests, sealer: what waits for a person.
        issuer: whose people these are.
    """

    grants: GrantStore
    people: PeopleStore
    own_grants: OwnGrants
    proofs: OwnProofs
    requests: ApprovalRequests
    sealer: Sealer
    issuer: str


class ProofPage:
    """Show step-ups and approvals."""

    def __init__(self, frame: ConsoleFrame, sources: ProofSources) -> None:
        """Take the frame and the stores."""
        self._frame = frame
        self._sources = sources

    def routes(self, access: ConsoleAccess, actions: ConsoleActions) -> list[Route]:
        """Return the routes."""

        async def show(request: Request, person: AdmittedPerson) -> Response:
            return await self._show(request, person, actions)

        return [Route(Section.PROOFS.path, access.guard(show), methods=["GET"])]

    def performers(self) -> dict[ActionKind, Performer]:
        """Return what does the things that this page offers."""
        return {ActionKind.END_STEP_UP: self._end, ActionKind.END_APPROVAL: self._end}

    async def _show(
        self, request: Request, person: AdmittedPerson, actions: ConsoleActions
    ) -> Response:
        query = query_of(request).casefold()
        page = await self._sources.grants.page(cursor_of(request), _PEOPLE)
        rows = list[_ShownProof]()
        for key in page.keys:
            name = self._sources.grants.person_name(key)
            record = await self._sources.people.of_name(name)
            if record is None:
                continue
            who = Person(self._sources.issuer, record.subject)
            for proof in await self._sources.proofs.of(who, await self._sources.own_grants.of(who)):
                searched = (record.account, proof.client, proof.server, proof.tool)
                if query and not any(query in each.casefold() for each in searched):
                    continue
                if len(rows) < _ROWS:
                    kind, target = _ending(who, proof)
                    words = f"{record.account or 'a person'}: {proof.tool or proof.server}"
                    token = actions.offer(request, person, kind, target, words)
                    rows.append(_ShownProof(proof, record.account, token))
        content = {
            "rows": sorted(rows, key=lambda row: row.proof.since, reverse=True),
            "waiting": [] if cursor_of(request) else await self._waiting(),
            "query": query_of(request),
            "cursor": page.cursor,
            "done": done(request),
        }
        return self._frame.page(request, person, Section.PROOFS, content)

    async def _waiting(self) -> list[ApprovalRequest]:
        """Return what people are asked to approve now, the latest first."""
        found = list[ApprovalRequest]()
        for kept in await self._sources.requests.some(_WAITING):
            try:
                found.append(open_request(self._sources.sealer, kept.sealed))
            except NotSealedError:
                continue
        return sorted(found, key=lambda each: each.ticket.at, reverse=True)

    async def _end(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        del operator
        subject, kind, grant, server, approval = action.target
        proof = ProofId(ProofKind(kind), grant, server, approval)
        await self._sources.proofs.end(Person(self._sources.issuer, subject), proof)
        fields = (("subject", subject), ("grant", grant), ("server", server))
        return ActionOutcome(approval or server, fields)


def _ending(who: Person, proof: OwnProof) -> tuple[ActionKind, tuple[str, ...]]:
    """Return what ends a step-up or an approval, and what that is told."""
    named = proof.id
    kind = ActionKind.END_STEP_UP if named.kind is ProofKind.STEP_UP else ActionKind.END_APPROVAL
    return kind, (who.subject, named.kind.value, named.grant, named.server, named.approval)
