"""The decision about a page over HTTP: changes to a request, or the answer to a browser.

Invariant: what says who asks is set by the log-in or removed, never left as it was sent; no token
of a session goes on; an answer holds nothing that a caller chose but escaped
(tests/core/test_admin_pages.py).
"""

import html
import json
from typing import Final
from urllib.parse import quote

from authz.core.admin_pages import (
    BROWSER_HEADER,
    LOG_OUT,
    SESSION_HEADER,
    PageAllow,
    PageDeny,
    navigates,
)
from authz.core.answers import HttpAnswer, UpstreamChanges
from authz.core.request import HttpRequest

# What pages learn of who asks; Authelia's own names. Each is set or removed, never left as sent.
REMOTE_USER: Final = "remote-user"
REMOTE_GROUPS: Final = "remote-groups"
REMOTE_NAME: Final = "remote-name"
REMOTE_EMAIL: Final = "remote-email"
IDENTITY_HEADERS: Final = (REMOTE_USER, REMOTE_GROUPS, REMOTE_NAME, REMOTE_EMAIL)

_AWAY: Final = 5  # seconds
_SLOW: Final = 60.0  # seconds that an answer may take, whatever it is
_UNAVAILABLE: Final = 503


def page_changes(allow: PageAllow, now: float) -> UpstreamChanges:
    """Return the headers of an allowed request: who asks, and no token of ours.

    An exchange lasts no longer than what was decided counts: a stream or WebSocket is opened anew
    then, which is a new decision.

    Args:
        allow: the request.
        now: seconds since the epoch.
    """
    login = allow.session
    values = {
        REMOTE_USER: _plain(login.account),
        REMOTE_GROUPS: ",".join(_plain(group) for group in sorted(login.groups)),
        REMOTE_NAME: _readable(login.name or login.account),
        REMOTE_EMAIL: _plain(login.email),
    }
    given = tuple((name, value) for name, value in values.items() if value)
    absent = tuple(name for name, value in values.items() if not value)
    lasts = max(1, int(_lasts(allow, now) * 1000))
    return UpstreamChanges(given, (*absent, SESSION_HEADER, BROWSER_HEADER), lasts=lasts)


def _lasts(allow: PageAllow, now: float) -> float:
    """Return the seconds that an exchange may last.

    Of groups that are about to be confirmed anew a slow answer is not cut for that.
    """
    session, age = allow.session, allow.page.rule.groups_max_age
    confirmed = max(session.groups_at + age - now, min(age, _SLOW))
    return min(session.until - now, age, confirmed)


def _plain(value: str) -> str:
    """Percent-encode all but printable ASCII that is no separator: two names are never one."""
    return quote(value, safe="!#$&'()*+/:;=?@[]~")


def _readable(value: str) -> str:
    """Return a name to show: as it is where a header can hold it."""
    plain = value.isascii() and value.isprintable() and value == value.strip()
    return value if plain else quote(value, safe=" !#$&'()*+/:;=?@[]~,").strip()


def page_refusal(
    deny: PageDeny,
    request: HttpRequest | None,
    log_in: str | None = None,
    set_cookie: str | None = None,
) -> HttpAnswer:
    """Return the answer of a refusal: a way to log in or a sentence for people, else JSON.

    Args:
        deny: the refusal.
        request: None where none could be read.
        log_in: where a browser that opens the page is sent; None where that does not help.
        set_cookie: goes with it.
    """
    row = deny.reason.row
    plain = [("cache-control", "no-store"), ("x-content-type-options", "nosniff")]
    if log_in is not None:
        cookie = [] if set_cookie is None else [("set-cookie", set_cookie)]
        return HttpAnswer(303, (*plain, ("location", log_in), *cookie), b"")
    if row.status == _UNAVAILABLE:
        plain.append(("retry-after", str(_AWAY)))
    request_id = "" if request is None else request.request_id
    if request is not None and navigates(request):
        return HttpAnswer(row.status, (*plain, *_HTML_HEADERS), _document(deny, request_id))
    body = json.dumps({"error": row.label, "message": row.sentence, "request_id": request_id})
    return HttpAnswer(row.status, (*plain, ("content-type", "application/json")), body.encode())


_HTML_HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    ("referrer-policy", "no-referrer"),
)


def _document(deny: PageDeny, request_id: str) -> bytes:
    link = ""
    if deny.session is not None:
        who = html.escape(deny.session.account)
        link = f'<p>You are logged in as {who}. <a href="{LOG_OUT}">Log out</a></p>'
    number = f"<p>Request {html.escape(request_id)}</p>" if request_id else ""
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Not allowed</title>'
        f"<h1>{html.escape(deny.reason.row.sentence)}</h1>{link}{number}</html>\n"
    )
    return text.encode("utf-8")
