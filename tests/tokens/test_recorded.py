"""What a real Authelia 4.39.20 gave out, token by token, at a fixed clock.

The table was written by hand from what each flow asked for; it is not made from our output.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from authz.core.principal import Principal, names_resource
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, Proof, SecondFactor, methods, satisfies
from tests.tokens.token_factory import FILES, NOTES, RULES, TokenBench

FIXTURES: Final = Path(__file__).parents[1] / "fixtures" / "authelia"

ALLOWED: Final = "allowed"
ELSEWHERE: Final = Reason.AUDIENCE_MISMATCH
OPAQUE: Final = Reason.TOKEN_OPAQUE
WRONG: Final = Reason.TOKEN_WRONG_KIND
NO_TOKEN: Final = "no token"

# (flow, what was sent as bearer) -> what the server `files` and the server `notes` answer.
TABLE: Final[Mapping[tuple[str, str], tuple[Reason | str, Reason | str]]] = {
    # The client may have both audiences, and asked for one of them.
    ("1fa client explicit, resource", "access_token"): (ALLOWED, ELSEWHERE),
    ("1fa client explicit, resource", "id_token"): (WRONG, WRONG),
    # Explicit audience mode and no resource asked for: `aud` is [].
    ("1fa client, 1fa session", "access_token"): (ELSEWHERE, ELSEWHERE),
    ("1fa client, 1fa session", "id_token"): (WRONG, WRONG),
    ("1fa client, 2fa session", "access_token"): (ELSEWHERE, ELSEWHERE),
    ("1fa client, 2fa session", "id_token"): (WRONG, WRONG),
    ("2fa audience param", "access_token"): (ALLOWED, ELSEWHERE),
    ("2fa audience param", "id_token"): (WRONG, WRONG),
    # Stopped at Authelia's portal: the client's policy wants a second factor.
    ("2fa client, 1fa session", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    # Implicit audience mode and no resource asked for: both of the client's audiences.
    ("2fa default", "access_token"): (ALLOWED, ALLOWED),
    ("2fa default", "id_token"): (WRONG, WRONG),
    ("2fa no openid", "access_token"): (ALLOWED, ALLOWED),
    ("2fa no pkce", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("2fa offline", "access_token"): (ALLOWED, ALLOWED),
    ("2fa offline", "refresh_token"): (WRONG, WRONG),
    ("2fa offline", "id_token"): (WRONG, WRONG),
    ("2fa one resource", "access_token"): (ALLOWED, ELSEWHERE),
    ("2fa one resource", "id_token"): (WRONG, WRONG),
    # Granted verbatim, with the slash; one is tolerated.
    ("2fa resource trailing slash", "access_token"): (ALLOWED, ELSEWHERE),
    ("2fa resource trailing slash", "id_token"): (WRONG, WRONG),
    ("2fa resource upper host", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("2fa two resources", "access_token"): (ALLOWED, ALLOWED),
    ("2fa two resources", "id_token"): (WRONG, WRONG),
    ("2fa unknown resource", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("2fa unknown scope", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    # Another person; what he may do is not the verifier's business.
    ("bob", "access_token"): (ALLOWED, ALLOWED),
    ("bob", "id_token"): (WRONG, WRONG),
    # Machines: their audience is the one that they were configured with.
    ("client credentials", "access_token"): (ALLOWED, ELSEWHERE),
    ("client credentials aud", "access_token"): (ALLOWED, ELSEWHERE),
    ("es256", "access_token"): (ALLOWED, ALLOWED),
    ("es256", "id_token"): (WRONG, WRONG),
    ("groups in the access token", "access_token"): (ALLOWED, ALLOWED),
    ("groups in the access token", "id_token"): (WRONG, WRONG),
    ("groups, scope not asked", "access_token"): (ALLOWED, ALLOWED),
    ("marker with scope", "access_token"): (ALLOWED, ALLOWED),
    ("marker with scope", "id_token"): (WRONG, WRONG),
    ("marker without scope", "access_token"): (ALLOWED, ALLOWED),
    ("marker without scope", "id_token"): (WRONG, WRONG),
    ("opaque", "access_token"): (OPAQUE, OPAQUE),
    ("opaque", "refresh_token"): (WRONG, WRONG),
    ("opaque", "id_token"): (WRONG, WRONG),
    ("resource https://mcp.example.test/Files", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    # Authelia grants what begins with an allowed audience, verbatim. We resolve nothing.
    ("resource https://mcp.example.test/files/../notes", "access_token"): (ELSEWHERE, ELSEWHERE),
    ("resource https://mcp.example.test/files/../notes", "id_token"): (WRONG, WRONG),
    ("resource https://mcp.example.test/files/private", "access_token"): (ELSEWHERE, ELSEWHERE),
    ("resource https://mcp.example.test/files/private", "id_token"): (WRONG, WRONG),
    ("resource https://mcp.example.test/files?x=1", "access_token"): (ELSEWHERE, ELSEWHERE),
    ("resource https://mcp.example.test/files?x=1", "id_token"): (WRONG, WRONG),
    ("resource https://mcp.example.test/filesystem", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("resource https://mcp.example.test:443/files", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    # Step-ups are our own log-ins: opaque access tokens for no server, and ID tokens.
    ("stepup", "access_token"): (OPAQUE, OPAQUE),
    ("stepup", "id_token"): (WRONG, WRONG),
    ("stepup 1fa client 2fa session", "access_token"): (OPAQUE, OPAQUE),
    ("stepup 1fa client 2fa session", "id_token"): (WRONG, WRONG),
    ("stepup 1fa session", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("stepup 1fa session prompt none", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("stepup acr_values", "access_token"): (OPAQUE, OPAQUE),
    ("stepup acr_values", "id_token"): (WRONG, WRONG),
    ("stepup claims acr", "access_token"): (OPAQUE, OPAQUE),
    ("stepup claims acr", "id_token"): (WRONG, WRONG),
    ("stepup groups", "access_token"): (OPAQUE, OPAQUE),
    ("stepup groups", "id_token"): (WRONG, WRONG),
    ("stepup localhost", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    ("stepup login_hint", "access_token"): (OPAQUE, OPAQUE),
    ("stepup login_hint", "id_token"): (WRONG, WRONG),
    ("stepup max_age 1", "access_token"): (OPAQUE, OPAQUE),
    ("stepup max_age 1", "id_token"): (WRONG, WRONG),
    ("stepup max_age 3600", "access_token"): (OPAQUE, OPAQUE),
    ("stepup max_age 3600", "id_token"): (WRONG, WRONG),
    ("stepup port", "access_token"): (OPAQUE, OPAQUE),
    ("stepup port", "id_token"): (WRONG, WRONG),
    ("stepup prompt login", "access_token"): (OPAQUE, OPAQUE),
    ("stepup prompt login", "id_token"): (WRONG, WRONG),
    ("stepup prompt none", "access_token"): (OPAQUE, OPAQUE),
    ("stepup prompt none", "id_token"): (WRONG, WRONG),
    ("unknown client", NO_TOKEN): (NO_TOKEN, NO_TOKEN),
    # introspection.json: the answer to a refresh of the opaque client.
    ("introspection: refresh", "access_token"): (OPAQUE, OPAQUE),
    ("introspection: refresh", "refresh_token"): (WRONG, WRONG),
    ("introspection: refresh", "id_token"): (WRONG, WRONG),
}

TOKENS: Final = ("access_token", "refresh_token", "id_token")


def load(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def recorded() -> dict[tuple[str, str], str]:
    """Collect every token of the recordings, and the flows that ended without one."""
    found: dict[tuple[str, str], str] = {}
    for flow, record in load("flows.json").items():
        response = record.get("response") or {}
        tokens = response.get("body", response)
        kinds = [kind for kind in TOKENS if kind in tokens]
        found.update({(flow, kind): tokens[kind] for kind in kinds} or {(flow, NO_TOKEN): ""})
    refresh = load("introspection.json")["refresh"]["body"]
    return found | {("introspection: refresh", kind): refresh[kind] for kind in TOKENS}


RECORDED: Final = recorded()


def bench() -> TokenBench:
    return TokenBench(*load("jwks.json")["keys"])


def answer(token: str, resource: str) -> Reason | str:
    """Answer as a server would, as far as its audience."""
    outcome = bench().outcome(token)
    if not isinstance(outcome, Principal):
        return outcome
    return ALLOWED if names_resource(outcome.audience, resource) else Reason.AUDIENCE_MISMATCH


def test_the_table_has_every_recorded_token() -> None:
    """No flow and no token of the recordings is left out, and none is made up."""
    assert set(TABLE) == set(RECORDED)
    assert len({flow for flow, _ in TABLE}) == len(load("flows.json")) + 1


@pytest.mark.parametrize(
    ("flow", "sent"), [row for row in TABLE if NO_TOKEN not in row], ids=" / ".join
)
@pytest.mark.attack("recorded-tokens")
def test_every_recorded_token_is_answered_as_the_table_says(flow: str, sent: str) -> None:
    """A recorded token, sent as bearer, is answered by each server as its flow deserves."""
    token = RECORDED[flow, sent]

    actual = (answer(token, FILES), answer(token, NOTES))

    assert TABLE[flow, sent] == actual


@pytest.mark.parametrize(
    ("flow", "subject", "client_id", "scopes", "groups"),
    [
        (
            "2fa default",
            "52b134ec-d812-4022-82b4-9100df7e1418",
            "mcp-2fa",
            {"openid", "mcp:tools"},
            set(),
        ),
        (
            "bob",
            "4531f362-f96e-4719-9af2-64398982e5fd",
            "mcp-2fa",
            {"openid", "mcp:tools"},
            set(),
        ),
        ("client credentials", None, "machine", {"mcp:tools"}, set()),
        (
            "groups in the access token",
            "52b134ec-d812-4022-82b4-9100df7e1418",
            "mcp-groups",
            {"openid", "profile", "groups", "email", "mcp:tools"},
            {"admins", "dev"},
        ),
        (
            "groups, scope not asked",
            "52b134ec-d812-4022-82b4-9100df7e1418",
            "mcp-groups",
            {"mcp:tools"},
            set(),
        ),
    ],
)
def test_what_a_recorded_token_says(
    flow: str, subject: str | None, client_id: str, scopes: set[str], groups: set[str]
) -> None:
    """Person, client, scopes and groups are the recorded ones; nothing is said of the log-in."""
    outcome = bench().outcome(RECORDED[flow, "access_token"])

    assert isinstance(outcome, Principal)
    assert (outcome.subject, outcome.client_id) == (subject, client_id)
    assert (set(outcome.scopes), set(outcome.groups)) == (scopes, groups)
    assert (outcome.amr, outcome.auth_time) == (None, None)


@pytest.mark.parametrize(
    ("flow", "assurance_claim"),
    [("marker with scope", "two_factor"), ("marker without scope", None), ("2fa default", None)],
)
@pytest.mark.attack("marker")
def test_a_recorded_marker_is_there_where_its_scope_was_granted(
    flow: str, assurance_claim: str | None
) -> None:
    """Authelia signs the marker into tokens of its scope; without it a token is like any other."""
    named = TokenBench(
        *load("jwks.json")["keys"], rules=replace(RULES, assurance_claim="mcp_assurance")
    )

    for asked, expected in ((named, assurance_claim), (bench(), None)):
        outcome = asked.outcome(RECORDED[flow, "access_token"])
        assert isinstance(outcome, Principal)
        assert outcome.assurance_claim == expected


def test_an_hour_later_every_recorded_jwt_has_expired() -> None:
    """At the fixed clock the tokens live; after their hour each one is told that it has expired."""
    late = bench()
    late.clock.now += 3600
    jwts = [
        token
        for (_, sent), token in RECORDED.items()
        if sent == "access_token" and token.startswith("eyJ")
    ]

    assert len(jwts) == 21
    assert {late.outcome(token) for token in jwts} == {Reason.TOKEN_EXPIRED}


# --- the ID tokens behind them, as the front door would record them ----------------------------

PASSWORD_ALONE: Final = "1fa client, 1fa session"  # the one recorded log-in without TOTP
LOG_INS: Final = {
    flow: record["id"]["claims"]
    for flow, record in load("flows.json").items()
    if (record.get("id") or {}).get("claims")
}
# What is asked, and which of the two recorded kinds of log-in is enough for it, when it is fresh.
ASKED: Final[Mapping[str, tuple[SecondFactor, bool]]] = {
    "any": (SecondFactor(Method.ANY), True),
    "totp": (SecondFactor(Method.TOTP), True),
    "totp, a minute": (SecondFactor(Method.TOTP, 60), True),
    "totp, by the log-in": (SecondFactor(Method.TOTP, None, frozenset({Evidence.LOGIN})), True),
    "totp, not by the log-in": (
        SecondFactor(Method.TOTP, None, frozenset({Evidence.TOKEN, Evidence.CLIENT})),
        False,
    ),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("flow", LOG_INS)
@pytest.mark.attack("password-under-a-rule-for-totp")
def test_a_recorded_log_in_proves_what_its_person_typed(flow: str, asked: str) -> None:
    """TOTP where TOTP was typed, and never by the policy of the client that it came through."""
    rule, enough = ASKED[asked]
    claims = LOG_INS[flow]
    proof = Proof(Evidence.LOGIN, methods(claims["amr"]), claims["auth_time"])

    assert satisfies(rule, proof, claims["iat"]) is (enough and flow != PASSWORD_ALONE)
    old = claims["auth_time"] + 61
    assert satisfies(rule, proof, old) is (
        enough and flow != PASSWORD_ALONE and rule.max_login_age is None
    )


def test_log_ins_with_and_without_totp_are_recorded() -> None:
    """The table above has both kinds."""
    without = {flow for flow, claims in LOG_INS.items() if "otp" not in claims["amr"]}

    assert without == {PASSWORD_ALONE}
    assert len(LOG_INS) == 29
