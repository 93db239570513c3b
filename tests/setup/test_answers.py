"""What may be answered: everything else is refused with a clear word, and nothing is written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.setup.answers import AnswerError, SetupAnswers, from_json


@pytest.mark.parametrize(
    "domain",
    [
        *("", "home", "Home.example", "home..example", ".example", "-a.example", "a-.example"),
        *("a b.example", "a.example\n", "a.example/../..", "$(id).example", "ä.example", "a_b.c"),
        *("{{ secret }}.example", "a.example'", 'a.example"', "a.example:443", "*.example"),
        *("a." * 125 + "example", "x" * 64 + ".example", "a.example\u2028", "a.example#"),
    ],
)
@pytest.mark.attack("authz init")
def test_a_domain_is_labels_and_dots(domain: str) -> None:
    """What could mean something in YAML, a shell, a path or a certificate is no domain."""
    with pytest.raises(AnswerError, match=r"^domain: "):
        SetupAnswers(domain=domain)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "../root"),
        ("user", "john: {a: b}"),
        ("user", "-john"),
        ("user", "john\nmary"),
        ("display_name", "John'\n  groups: [admins]"),
        ("display_name", "{{ secret }}"),
        ("email", "john@example.com'"),
        ("email", "john"),
        ("bind", "::1"),
        ("bind", "0.0.0.0:80"),
        ("bind", "$(hostname)"),
        ("funnel", "a/b"),
        ("internal", "http://authelia:9091 # x"),
        ("internal", "ftp://authelia"),
        ("port", 0),
        ("login", "both"),
        ("servers", {"token": "http://x"}),
        ("port", 65536),
        ("uid", 0),
        ("gid", 0),
        ("uid", -1),
        ("servers", {}),
        ("servers", {"../x": "http://x"}),
        ("servers", {"X": "http://x"}),
        ("servers", {"redis": "http://x"}),
        ("servers", {"x": ""}),
        ("servers", {"x": "unix:/run/x.sock"}),
        ("servers", {"x": "/run/x.sock"}),
        ("servers", {"x": "http://x\n    networks: [redis]"}),
        ("servers", {"x": "http://user:secret@x"}),
        ("servers", {"x": "http://x/{{ y }}"}),
    ],
)
@pytest.mark.attack("authz init")
def test_an_answer_is_what_it_is_written_into(field: str, value: object) -> None:
    """Each is of an alphabet that needs no quoting where it goes."""
    answers: dict[str, Any] = {"domain": "home.example.com", field: value}
    with pytest.raises(AnswerError, match=r"^[a-z ]+: ") as refused:
        SetupAnswers(**answers)

    assert len(str(refused.value)) < 200


def test_a_server_on_a_socket_is_told_why_not() -> None:
    """Containers share no folder: what works on one machine is refused in words."""
    with pytest.raises(AnswerError, match=r"shares a network .*write x=http://x:8000/mcp"):
        SetupAnswers(domain="home.example.com", servers={"x": "unix:/run/x.sock"})


@given(st.text(max_size=40))
def test_whatever_passes_for_a_domain_is_plain(text: str) -> None:
    """No text that is taken has a character that means something elsewhere."""
    try:
        answers = SetupAnswers(domain=text)
    except AnswerError:
        return
    assert set(answers.domain) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def test_answers_come_back() -> None:
    """What one run was told the next one knows."""
    answers = SetupAnswers(domain="home.example.com", servers={"a": "http://a:1/mcp"}, port=8443)

    assert SetupAnswers(**from_json(answers.to_json())) == answers


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"domain": 1}', '{"other": "x"}', '{"port": true}', '{"servers": []}']
)
def test_answers_of_somebody_else_are_refused(text: str) -> None:
    """A file that authz init did not write is said to be so."""
    with pytest.raises(AnswerError, match=r"^init\.json: "):
        from_json(text)


def test_names_follow_from_the_domain() -> None:
    """Two names, and the port where it is not https's own."""
    answers = SetupAnswers(domain="home.example.com", port=8443)

    assert answers.gateway == "https://mcp.home.example.com:8443"
    assert answers.issuer == "https://auth.home.example.com:8443"


def test_behind_funnel_there_is_one_name() -> None:
    """The portal is at another port of it."""
    answers = SetupAnswers(domain="n.tail1.ts.net", funnel="n.tail1.ts.net")

    assert (answers.gateway, answers.issuer) == (
        "https://n.tail1.ts.net",
        "https://n.tail1.ts.net:8443",
    )


def test_one_name_is_enough() -> None:
    """The portal is at a path of it, behind Funnel and without."""
    funnel = SetupAnswers(domain="n.tail1.ts.net", funnel="n.tail1.ts.net", one_name=True)
    here = SetupAnswers(domain="home.example.com", port=8443, one_name=True)

    assert (funnel.issuer, here.issuer) == (
        "https://n.tail1.ts.net/auth",
        "https://mcp.home.example.com:8443/auth",
    )
    assert (funnel.cookie_domain, here.cookie_domain) == ("n.tail1.ts.net", "mcp.home.example.com")


@pytest.mark.parametrize(
    "more",
    [{"servers": {"auth": "http://a:1/mcp"}}, {"issuer_url": "https://login.example.com"}],
)
def test_one_name_has_one_party_at_a_path(more: dict[str, Any]) -> None:
    """No server is where the portal is; an Authelia that somebody has says itself where it is."""
    with pytest.raises(AnswerError):
        SetupAnswers(domain="home.example.com", one_name=True, **more)
    assert SetupAnswers(domain="home.example.com", **more).issuer


def test_answers_hold_no_secret() -> None:
    """What is kept for the next run could be shown to anybody."""
    assert set(json.loads(SetupAnswers(domain="a.b").to_json())) == set(SetupAnswers.__slots__)
