"""What opens an admin page: the pure steps of its decision."""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.admin_pages import (
    SESSION_HEADER,
    AdminPage,
    PageAllow,
    PageDeny,
    check_site,
    navigates,
    page_deny,
    page_of,
    read_page,
)
from authz.core.browser_session import BrowserRule, BrowserSession
from authz.core.page_answers import IDENTITY_HEADERS, page_changes, page_refusal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.core.second_factor import Method, SecondFactor
from authz.envoy import codec

NOW = 1_800_000_000
ORIGIN = "https://grafana.example.com"
PAGE = AdminPage(
    "grafana", ORIGIN, "/g",
    BrowserRule(frozenset({"admins"}), SecondFactor(Method.TOTP), groups_max_age=600.0), "d1",
)  # fmt: skip
JOHN = BrowserSession(
    "s-john", "john", frozenset({"admins"}), Method.TOTP, NOW - 60, NOW - 60, NOW + 3600,
    NOW - 60, "a-token", NOW + 3600, True,
)  # fmt: skip
TOKEN = "t" * 43
CONTEXT = {"page": "grafana", "upstream": "d1"}


def sent(method: str = "GET", path: str = "/g/x", **headers: str) -> HttpRequest:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest(method, path, names, b"", dict(CONTEXT), "192.0.2.1", "r-1")


def reason_of(request: HttpRequest, page: AdminPage = PAGE) -> Reason | None:
    try:
        read_page(request, page)
    except RefusedError as refused:
        return refused.reason
    return None


@pytest.mark.attack("page-apart")
@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"page": "grafana", "upstream": "d1"}, None),
        ({"page": "grafana", "upstream": "d2"}, Reason.ROUTE_OUTDATED),
        ({"page": "grafana"}, Reason.ROUTE_OUTDATED),
        ({"page": "grafana", "upstream": "d1", "server": "files"}, Reason.UNKNOWN_PAGE),
        ({"page": "Grafana", "upstream": "d1"}, Reason.UNKNOWN_PAGE),
        ({"page": "", "upstream": "d1"}, Reason.UNKNOWN_PAGE),
        ({}, Reason.UNKNOWN_PAGE),
    ],
)
def test_the_route_says_which_page(context: dict[str, str], reason: Reason | None) -> None:
    """And to which upstream it leads; a route of a server is none of a page."""
    request = replace(sent(), context=context)
    if reason is None:
        assert page_of(request, {"grafana": PAGE}) is PAGE
        return
    with pytest.raises(RefusedError) as caught:
        page_of(request, {"grafana": PAGE})
    assert caught.value.reason is reason


@pytest.mark.attack("page-apart", "path-games")
@pytest.mark.parametrize("path", ["/", "/gx", "/G/x", "g/x", "*", "/x/g", "//g", "?/g", ""])
def test_a_path_that_is_not_the_page_s_is_refused(path: str) -> None:
    """Envoy's match is not believed alone."""
    request = sent(path=path, x_authz_session=TOKEN)
    assert reason_of(request) is Reason.UNKNOWN_PAGE
    assert reason_of(sent(path="/g", x_authz_session=TOKEN)) is None
    assert reason_of(sent(path="/g?a=/", x_authz_session=TOKEN)) is None


texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
targets = texts | st.sampled_from(
    ["//evil", "/g//evil", "/g/..//evil", "/g\\evil", "/g/@evil", "https://evil/g/", "/g/:80", "/g"]
)


@given(targets, st.sampled_from(["", "/g"]))
def test_the_way_back_is_of_the_page_s_origin(target: str, path: str) -> None:
    """For any request target, the address is one of the page's own origin, below its path."""
    page = replace(PAGE, path=path)
    url = ORIGIN + page.return_path(target)
    found = urlsplit(url)
    assert (found.scheme, found.netloc) == ("https", "grafana.example.com")
    assert page.holds(page.return_path(target))


words = st.sampled_from(
    ["same-origin", "same-site", "cross-site", "none", "navigate", "cors", "no-cors", "websocket",
     "document", "iframe", "image", "empty", ORIGIN, "https://evil.example", "null", "text/html",
     "*/*", ""]
)  # fmt: skip
headers = st.dictionaries(
    st.sampled_from(
        ["origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "accept", "upgrade",
         "authorization", "cookie", "x-other"]
    ),
    words,
)  # fmt: skip
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])


@pytest.mark.attack("page-without-session")
@given(methods, headers)
def test_nothing_but_the_session_s_token_opens_a_page(method: str, others: dict[str, str]) -> None:
    """Whatever else a request has, a bearer token among it."""
    request = HttpRequest(method, "/g", others, b"", dict(CONTEXT), "", "")
    assert reason_of(request) is Reason.SESSION_MISSING
    for token in ("t" * 42, "t" * 44, f"{TOKEN},{TOKEN}", f"{TOKEN[:-1]}=", "é" * 43, f" {TOKEN}"):
        request.headers[SESSION_HEADER] = token
        assert reason_of(request) is Reason.SESSION_MISSING


@pytest.mark.attack("page-cross-site", "page-cross-site-websocket")
@given(methods, headers)
def test_what_passes_is_the_page_s_own_or_a_link(method: str, others: dict[str, str]) -> None:
    """A request that passes was sent by the page itself, or by a person who opens it."""
    request = HttpRequest(method, "/g", others, b"", dict(CONTEXT), "", "")
    try:
        check_site(request, ORIGIN)
    except RefusedError:
        return
    site, origin = others.get("sec-fetch-site"), others.get("origin")
    assert origin in {None, ORIGIN}
    assert site in {None, "same-origin", "none"} or (
        navigates(request) and origin in {None, ORIGIN}
    )
    if "upgrade" in others:
        assert origin == ORIGIN
    if method not in {"GET", "HEAD"}:
        assert origin == ORIGIN or site == "same-origin"


def test_upgrades_are_to_web_sockets() -> None:
    """And to nothing else."""
    for upgrade, reason in (("websocket", None), ("h2c", Reason.MALFORMED_REQUEST)):
        request = sent(x_authz_session=TOKEN, upgrade=upgrade, origin=ORIGIN)
        assert reason_of(request) is reason


names = st.text(max_size=20)
logins = st.builds(
    BrowserSession,
    subject=st.just("s"),
    account=names.filter(bool),
    groups=st.frozensets(names, max_size=4),
    method=st.just(Method.TOTP),
    auth_time=st.just(NOW),
    began=st.just(NOW),
    until=st.integers(NOW - 10, NOW + 10_000),
    groups_at=st.integers(NOW - 700, NOW + 60),
    token=st.just("a-token"),
    token_until=st.just(NOW + 3600),
    two_factor=st.just(True),
    name=names,
    email=names,
)


@pytest.mark.attack("page-spoofed-identity")
@given(logins, logins)
def test_every_header_of_identity_is_set_or_removed(
    one: BrowserSession, two: BrowserSession
) -> None:
    """For any names, headers can be sent, and two people are never one to the page."""
    changes = page_changes(PageAllow(PAGE, one), NOW)
    codec.encode_allow(changes)
    names_set = {name for name, _ in changes.set_headers}
    assert names_set | set(changes.remove_headers) >= {*IDENTITY_HEADERS, SESSION_HEADER}
    assert names_set.isdisjoint(changes.remove_headers)
    # No stream outlives what was decided: the session, its groups, and the page's own bound.
    confirmed = one.groups_at + 600 - NOW
    assert 1 <= changes.lasts <= 600_000
    assert changes.lasts <= max(1, 1000 * min(one.until - NOW, max(60, confirmed)))
    other = dict(page_changes(PageAllow(PAGE, two), NOW).set_headers)
    if dict(changes.set_headers)["remote-user"] == other["remote-user"]:
        assert one.account == two.account
    if dict(changes.set_headers).get("remote-groups") == other.get("remote-groups"):
        assert one.groups - {""} == two.groups - {""}


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_no_redirect_but_to_a_log_in(reason: Reason) -> None:
    """A call gets JSON, a person a page without anything that a caller chose in the clear."""
    deny = PageDeny(reason, page=PAGE, session=replace(JOHN, account="<script>"))
    call = page_refusal(deny, sent())
    assert call.status == reason.row.status
    assert dict(call.headers)["content-type"] == "application/json"
    shown = page_refusal(deny, sent(accept="text/html"))
    assert b"<script>" not in shown.body
    assert shown.status == reason.row.status
    for answer in (call, shown):
        assert "location" not in dict(answer.headers)
        assert "www-authenticate" not in dict(answer.headers)
        codec.encode_deny(answer, reason.label)
    to_log_in = page_refusal(deny, sent(accept="text/html"), "https://mcp.example.com/x", "a=b")
    assert to_log_in.status == 303


def test_only_what_a_log_in_lifts_leads_to_one() -> None:
    """A person in no group would come back as they went."""
    lifted = {each for each in Reason if PageDeny(each, page=PAGE).is_lifted_by_login}
    assert lifted == {
        Reason.SESSION_MISSING, Reason.SESSION_REVOKED, Reason.SECOND_FACTOR_REQUIRED,
        Reason.LOGIN_TOO_OLD,
    }  # fmt: skip
    assert not PageDeny(Reason.SESSION_MISSING).is_lifted_by_login
    refused = RefusedError(Reason.LOGIN_TOO_OLD, second_factor=SecondFactor(Method.TOTP, 60))
    assert page_deny(refused, PAGE).second_factor == SecondFactor(Method.TOTP, 60)
