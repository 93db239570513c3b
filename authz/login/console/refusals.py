"""Recent refusals of the audit trail, each explained: what it means, and which rules it met."""

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.audit.query import AuditFilter, matching_record
from authz.audit.record import AuditEvent, AuditRecord
from authz.audit.store import TrailEntry, TrailStore, is_entry_id
from authz.core.policy import OperationKind, Policy
from authz.core.reason import Reason
from authz.login.console.access import PATH, AdmittedPerson, ConsoleAccess
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.console.log_ins import query_of
from authz.login.console.rules import RuleWords, describe_target
from authz.login.web.error_pages import ErrorPage, PageError

_ROWS: Final = 50
_LOOKED_AT: Final = 5_000  # records of one page
_EXPLAIN: Final = f"{PATH}/refusals/explain"
_REFUSED: Final = frozenset({AuditEvent.DECISION, AuditEvent.REFUSALS})
_SEARCHED: Final = (
    "account", "subject", "client_id", "server", "tool", "target", "reason", "request_id",
)  # fmt: skip
_BY_LABEL: Final = {each.label: each for each in Reason}
_HIDDEN: Final = frozenset({"reason", "verdict", "heads", "last"})

NO_RECORD: Final = ErrorPage(
    404,
    "There is no such record any more",
    "The audit trail keeps as many records as authz.yaml says. Look at the list again.",
    "console: no such record",
)


@dataclass(frozen=True, slots=True)
class _ShownRefusal:
    id: str
    record: AuditRecord


class RefusalPages:
    """Show refusals."""

    def __init__(self, frame: ConsoleFrame, trail: TrailStore, policy: Policy) -> None:
        """Take the frame, the trail, and the rules in force."""
        self._frame = frame
        self._trail = trail
        self._policy = policy

    def routes(self, access: ConsoleAccess) -> list[Route]:
        """Return the routes."""
        return [
            Route(Section.REFUSALS.path, access.guard(self._show), methods=["GET"]),
            Route(_EXPLAIN, access.guard(self._explain), methods=["GET"]),
        ]

    async def _show(self, request: Request, person: AdmittedPerson) -> Response:
        query, before = query_of(request).casefold(), request.query_params.get("after", "")
        rows, last, count = list[_ShownRefusal](), "", 0
        async for entry in self._trail.backwards(before if is_entry_id(before) else ""):
            count, last = count + 1, entry.id
            record = _refusal(entry)
            if record is not None and _matches(record, query):
                rows.append(_ShownRefusal(entry.id, record))
            if len(rows) == _ROWS or count == _LOOKED_AT:
                break
        else:
            last = ""
        content = {"rows": rows, "query": query_of(request), "cursor": last}
        return self._frame.page(request, person, Section.REFUSALS, content)

    async def _explain(self, request: Request, person: AdmittedPerson) -> Response:
        entry = await self._trail.find(request.query_params.get("id", ""))
        record = None if entry is None else _refusal(entry)
        if record is None:
            raise PageError(NO_RECORD)
        fields = record.fields
        reason = _BY_LABEL.get(fields.get("reason", ""))
        content = {
            "record": record,
            "reason": None if reason is None else reason.value,
            "rules": self._rules(fields.get("server", ""), fields.get("tool", "")),
            "fields": [each for each in fields.items() if each[0] not in _HIDDEN],
            "request_id": fields.get("request_id", ""),
        }
        return self._frame.page(
            request, person, Section.REFUSALS, content, template="console/explain.html"
        )

    def _rules(self, name: str, tool: str) -> list[RuleWords]:
        """Return the rules in force that such a call meets."""
        server = self._policy.servers.get(name)
        if server is None:
            return []
        targets = [target for target in server.targets() if target.kind is None]
        if tool:
            targets += server.matching(OperationKind.TOOL, tool)
        return [describe_target(target) for target in targets]


def _refusal(entry: TrailEntry) -> AuditRecord | None:
    record = matching_record(AuditFilter(), entry)
    if record is None or record.event not in _REFUSED:
        return None
    is_allowed = record.event is AuditEvent.DECISION and record.fields.get("verdict") == "allow"
    return None if is_allowed else record


def _matches(record: AuditRecord, query: str) -> bool:
    return not query or any(query in record.fields.get(name, "").casefold() for name in _SEARCHED)
