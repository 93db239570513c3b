"""Explain lines of the log about one request: decision, Envoy's access log, error page, log-in."""

import json
from collections.abc import Mapping
from typing import Final

from authz.cli.common import DONE, FAILED, CommandError
from authz.config.problems import quoted
from authz.core.reason import Reason, fill_in
from authz.envoy.response_details import DENIED, FIXED, PASSED_ON, ResponseCause, cause_of
from authz.login.web.error_page_causes import cause_of_page
from authz.telemetry.audit import Record
from authz.telemetry.log_reader import LoggedLine, RequestLines

METHODS: Final = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}
_REFUSED: Final = 400
_NOT_EXPLAINED: Final = frozenset({"event", "request_id", "time"})


def explain_lines(found: RequestLines, *, as_json: bool) -> int:
    """Print what the lines about one request say; return the exit status.

    Raises:
        CommandError: where there is a reason that this version does not know.
    """
    told = [
        *_decided(found.decision, found.access),
        *_listed(found.not_shown),
        *_at_envoy(found),
        *_on_pages(found),
    ]
    if as_json:
        first, *more = told
        print(json.dumps(first | ({"also": more} if more else {}), indent=2))
    else:
        for verdict in told:
            print_verdict(verdict)
    return FAILED if any(verdict["verdict"] == "deny" for verdict in told) else DONE


def _decided(line: LoggedLine | None, access: LoggedLine | None) -> list[dict[str, object]]:
    """Explain the reason of a decision: allowed, or a row of the table.

    Args:
        line: of the decision.
        access: Envoy's, which has the status that the client got.
    """
    if line is None:
        return []
    record, label = line.record, line.record.get("reason")
    if label == "allowed" and record.get("verdict") == "allow":
        return [_from(line, verdict_of(None, "", {}))]
    reason = _reason(label)
    if reason is None:
        raise CommandError("the line has a reason that this version does not know")
    fields = {"server": "server", "client": "client_id", "page": "page"} | {
        each: each for each in METHODS
    }
    names = {kind: str(record[name]) for kind, name in fields.items() if name in record}
    verdict = verdict_of(reason, str(record.get("detail", "")), names)
    return [_from(line, verdict | ({} if access is None else _answered(access.record)))]


def _answered(access: Record) -> dict[str, object]:
    """Return the status that Envoy answered with, where its line has one."""
    status = access.get("status")
    return {"answered": status} if isinstance(status, int) else {}


def _listed(line: LoggedLine | None) -> list[dict[str, object]]:
    if line is None:
        return []
    cause = cause_of("ext_proc_error", "")
    told = {
        "verdict": "deny",
        "reason": "list_not_shown",
        "detail": f"{line.record.get('fault', '')}: {line.record.get('detail', '')}",
        "meaning": cause.meaning,
        "mend": "the detail says what was wrong with the server's list, or with authz",
        "fields": [],
    }
    return [_from(line, told)]


def _at_envoy(found: RequestLines) -> list[dict[str, object]]:
    """Explain what Envoy answered, where the other lines do not."""
    line = found.access
    if line is None:
        return []
    record = line.record
    cause = cause_of(str(record.get("details") or ""), str(record.get("flags") or ""))
    known = found.decision or found.page or found.steps or found.not_shown or found.crash
    if cause in (DENIED, PASSED_ON, FIXED) and known:
        return []
    status = record.get("status")
    status = status if isinstance(status, int) else 0
    reason = _reason(record.get("reason")) if cause is DENIED else None
    if reason is not None:
        # The dynamic metadata of ext_authz, which Envoy's log has besides.
        verdict = verdict_of(reason, "", _server_of(record)) | _answered(record)
        return [_from(line, verdict)]
    passed = cause in (PASSED_ON, FIXED) and status < _REFUSED
    return [_from(line, _envoys(cause, status, record, passed=passed))]


def _envoys(
    cause: ResponseCause, status: int, record: Record, *, passed: bool
) -> dict[str, object]:
    names = {kind: _name(name) for kind, name in _server_of(record).items()}
    return {
        "verdict": "allow" if passed else "deny",
        "reason": cause.name,
        "detail": f"{record.get('details') or ''} {record.get('flags') or ''}".strip(),
        "status": status,
        "meaning": cause.meaning,
        "mend": fill_in(cause.fix, names),
        "fields": [],
        "host": str(record.get("host") or ""),
        "path": str(record.get("path") or ""),
        "route": str(record.get("route") or ""),
    }


def _server_of(record: Record) -> dict[str, str]:
    """Return the server or page that a route's name says (`mcp:files`, `admin:grafana`)."""
    kind, _, rest = str(record.get("route") or "").partition(":")
    name = rest.partition(":")[0]
    return {"page" if kind == "admin" else "server": name} if name else {}


def _on_pages(found: RequestLines) -> list[dict[str, object]]:
    told = [_from(line, _step(line.record)) for line in found.steps]
    if found.page is not None:
        note = str(found.page.record.get("detail", ""))
        cause = cause_of_page(note)
        page = {
            "verdict": "deny",
            "reason": "error_page",
            "detail": note,
            "sentence": cause.shown,
            "meaning": "A person saw an error page of the log-in.",
            "mend": cause.fix,
            "fields": [],
        }
        told.append(_from(found.page, page))
    if found.crash is not None:
        crash = {
            "verdict": "deny",
            "reason": "crash",
            "detail": f"{found.crash.record.get('error', '')} {found.crash.record.get('where')}",
            "meaning": "A defect of authz. Nothing was allowed by it.",
            "mend": "report it with the places in the detail, which hold nothing of a caller",
            "fields": [],
        }
        told.append(_from(found.crash, crash))
    return told


def _step(record: Record) -> dict[str, object]:
    """Describe one step of a log-in."""
    outcome = str(record.get("outcome", ""))
    more = {name: record[name] for name in record.keys() - _NOT_EXPLAINED - {"step", "outcome"}}
    detail = " ".join(f"{name}={value}" for name, value in sorted(more.items()))
    if outcome == "ok":
        return {"verdict": "allow", "reason": f"{record.get('step', '')}: ok", "detail": detail}
    return {
        "verdict": "deny",
        "reason": f"{record.get('step', '')}: {outcome}",
        "detail": detail,
        "meaning": "A step of a log-in ended so; the detail says more.",
        "mend": "`authz clients` shows the clients, and `authz doctor` looks at Authelia's side",
        "fields": [],
    }


def _from(line: LoggedLine, verdict: Mapping[str, object]) -> dict[str, object]:
    return dict(verdict) | ({"source": line.source} if line.source else {})


def _reason(label: object) -> Reason | None:
    return next((each for each in Reason if each.label == label), None)


def verdict_of(reason: Reason | None, detail: str, names: Mapping[str, str]) -> dict[str, object]:
    """Return a verdict with what its reason means, as `--json` prints it."""
    if reason is None:
        return {"verdict": "allow", "reason": "allowed"}
    row = reason.row
    return {
        "verdict": "deny",
        "reason": reason.label,
        "detail": detail,
        "status": row.status,
        "sentence": row.sentence,
        "meaning": row.meaning,
        **fixes_of(reason, names),
    }


def fixes_of(reason: Reason | None, names: Mapping[str, str]) -> dict[str, object]:
    """Return what fixes a refusal, and the fields of authz.yaml that decide it."""
    if reason is None:
        return {}
    known = {kind: _name(value) for kind, value in names.items()}
    fields = [fill_in(each, known) for each in reason.row.fields]
    # What was asked for is a page, or it is none.
    others = "servers." if "page" in names else "pages."
    fields = [each for each in fields if not each.startswith(others)]
    # Fields of a rule about something that was named.
    kinds = [f".{kind}s.<pattern>" for kind in METHODS if kind in names]
    fields = [
        each for each in fields if "<pattern>" not in each or any(kind in each for kind in kinds)
    ]
    return {"mend": fill_in(reason.row.fix, known), "fields": fields}


def _name(value: str) -> str:
    """Return a name, quoted where a caller may have chosen it: it cannot pretend to be ours."""
    return value if value.isidentifier() else quoted(value)


def fix_line(told: Mapping[str, object]) -> str:
    """Return what fixes a refusal, as one line."""
    fields = told.get("fields")
    where = f" (authz.yaml: {', '.join(fields)})" if isinstance(fields, list) and fields else ""
    return f"{told['mend']}{where}"


def _status(verdict: Mapping[str, object]) -> str:
    """Return the HTTP status of a refusal, which depends on the request where 200 is possible."""
    status, reason = verdict.get("answered") or verdict.get("status"), _reason(verdict["reason"])
    if not status:
        return ""
    if verdict.get("answered") or reason is None or not reason.row.of_operation:
        return f", HTTP {status}"
    return f", HTTP 200 (or {status}: gateway.refusals)"


def print_verdict(verdict: Mapping[str, object]) -> None:
    """Print a verdict for people; what a caller chose is quoted."""
    source = f" ({quoted(str(verdict['source']))})" if verdict.get("source") else ""
    if verdict["verdict"] == "allow":
        reason = str(verdict["reason"])
        print(f"{reason if reason == 'allowed' else 'allowed: ' + quoted(reason)[1:-1]}{source}")
        if verdict.get("detail"):
            print(f"  detail:           {quoted(str(verdict['detail']))}")
        return
    print(f"refused: {quoted(str(verdict['reason']))[1:-1]}{_status(verdict)}{source}")
    for name in ("host", "path"):
        if verdict.get(name):
            print(f"  {f'{name}:':<18}{quoted(str(verdict[name]))}")
    if verdict.get("sentence"):
        reader = "person" if verdict["reason"] == "error_page" else "client"
        print(f"  the {reader} reads: {verdict['sentence']}")
    print(f"  what it means:    {verdict['meaning']}")
    if verdict["detail"]:
        print(f"  detail:           {quoted(str(verdict['detail']))}")
    print(f"  what mends it:    {fix_line(verdict)}")
