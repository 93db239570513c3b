"""Sessions of browsers as they are sealed, and the tickets of their log-ins."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.browser_session import BrowserSession
from authz.core.limits import digest
from authz.core.second_factor import Method
from authz.tokens.browser_sessions import open_session, seal_session, session_of, session_value
from authz.tokens.page_tickets import PageTicket, open_page_ticket, seal_page_ticket
from authz.tokens.sealing import NotSealedError, Sealer

ORIGIN, TOKEN = "https://grafana.example.com", "t" * 43
NOW = [1_800_000_000.0]
SEALER = Sealer(["k" * 32], lambda: NOW[0])
JOHN = BrowserSession(
    "s", "john", frozenset({"a", "b"}), Method.TOTP, 1, 2, 3, 4, "at", 5, True, "John", "j@x"
)

texts = st.text(max_size=10)
logins = st.builds(
    BrowserSession,
    subject=texts.filter(bool),
    account=texts,
    groups=st.frozensets(texts, max_size=3),
    method=st.sampled_from([Method.NONE, Method.ANY, Method.OTP, Method.TOTP]),
    auth_time=st.integers(0, 2**40),
    began=st.integers(0, 2**40),
    until=st.integers(0, 2**40),
    groups_at=st.integers(0, 2**40),
    token=texts,
    token_until=st.integers(0, 2**40),
    two_factor=st.booleans(),
    name=texts,
    email=texts,
)


@given(logins)
def test_what_is_sealed_is_opened(login: BrowserSession) -> None:
    """For one origin and token, and while it lasts."""
    text = seal_session(SEALER, login, ORIGIN, TOKEN, 60)
    assert open_session(SEALER, text, ORIGIN, TOKEN) == login


@pytest.mark.attack("page-session-of-another")
def test_nothing_else_is_a_session() -> None:
    """Not one of another origin or deployment, not a ticket, nor what has ended."""
    text = seal_session(SEALER, JOHN, ORIGIN, TOKEN, 60)
    ticket = seal_page_ticket(SEALER, PageTicket("grafana", "/", "b"))
    other = seal_session(Sealer(["o" * 32], lambda: NOW[0]), JOHN, ORIGIN, TOKEN, 60)
    for sent, origin in (
        (text, "https://wiki.example.com"), (ticket, ORIGIN), (other, ORIGIN), ("", ORIGIN),
        (text[:-1], ORIGIN), ("é", ORIGIN),
    ):  # fmt: skip
        with pytest.raises(NotSealedError):
            open_session(SEALER, sent, origin, TOKEN)
    late = Sealer(["k" * 32], lambda: NOW[0] + 60)
    with pytest.raises(NotSealedError):
        open_session(late, text, ORIGIN, TOKEN)
    with pytest.raises(NotSealedError):
        open_page_ticket(SEALER, text)


@pytest.mark.attack("page-session-of-another")
def test_a_copy_in_redis_is_no_session_of_another_token() -> None:
    """Whoever can read and write Redis gives nobody's log-in to a token of their own."""
    text = seal_session(SEALER, JOHN, ORIGIN, TOKEN, 60)
    with pytest.raises(NotSealedError):
        open_session(SEALER, text, ORIGIN, "u" * 43)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""}, {"subject": 1}, {"account": None}, {"groups": "a"}, {"groups": [1]},
        {"method": 4}, {"method": -1}, {"method": True}, {"until": 1.5}, {"began": "2"},
        {"auth_time": None}, {"email": []}, {"token": None}, {"groups_at": True},
        {"two_factor": 1}, {"token_until": "9"},
    ],
)  # fmt: skip
def test_members_are_those_of_a_log_in(changes: dict[str, Any]) -> None:
    """What another version wrote is no session."""
    assert session_of(session_value(JOHN)) == JOHN
    with pytest.raises(NotSealedError):
        session_of(session_value(JOHN) | changes)
    for name in session_value(JOHN):
        with pytest.raises(NotSealedError):
            session_of({key: value for key, value in session_value(JOHN).items() if key != name})


@pytest.mark.parametrize("purpose", ["page-session", "browser-session"])
def test_sessions_of_earlier_releases_end(purpose: str) -> None:
    """Both kinds there were: people log in again."""
    of_page: dict[str, Any] = {
        "origin": ORIGIN,
        "token": digest(TOKEN),
        "subject": "s",
        "account": "john",
    }
    of_page |= {"groups": ["a"], "method": 3, "auth_time": 1, "began": 2, "until": 3}
    of_page |= {"name": "", "email": ""}
    session = {"subject": "s", "account": "john", "method": 3, "auth_time": 1, "began": 2}
    of_console = {"of": digest(TOKEN), "session": session | {"until": 3, "token": "at"}}
    values: tuple[dict[str, Any], ...] = (
        of_page, of_console, of_console | {"origin": ORIGIN}, {}, {"session": []}
    )  # fmt: skip
    for value in values:
        with pytest.raises(NotSealedError):
            open_session(SEALER, SEALER.seal(purpose, value, 60), ORIGIN, TOKEN)


def test_tickets() -> None:
    """A ticket is whole, or none."""
    ticket = PageTicket("grafana", "/d/a", "b")
    assert open_page_ticket(SEALER, seal_page_ticket(SEALER, ticket)) == ticket
    for broken in (replace(ticket, page=""), replace(ticket, browser="")):
        with pytest.raises(NotSealedError):
            open_page_ticket(SEALER, seal_page_ticket(SEALER, broken))
