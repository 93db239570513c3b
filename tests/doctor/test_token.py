"""Tokens that would not do, each for one reason."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from authz.doctor import token
from authz.doctor.finding import Severity
from authz.doctor.token import TokenReport
from tests.demo.kit import recorded
from tests.doctor.kit import diagnoses, problems, settings, the
from tests.support.values import front_door
from tests.tokens.token_factory import ABSENT, FILES, ISSUER, NOW, key_set, rsa_signer

KEYS = key_set(rsa_signer().jwk())
OPAQUE = "authelia_at_" + "a" * 43 + "." + "b" * 43


def examine(
    text: str, *, clients: str = "{}", servers: str = "", now: float = NOW, **changes: Any
) -> TokenReport:
    more = {"servers": servers} if servers else {}
    known = settings(clients=clients, **more, **changes)
    return asyncio.run(token.examine(text, known, KEYS, now, None))


def good(**claims: object) -> str:
    return rsa_signer().token({"aud": [FILES], "scp": ["mcp:files"], **claims})


def test_a_good_token() -> None:
    """It is said whose it is, that it would do at its server, and not at the other."""
    found = examine(f" Bearer {good()}\n")

    assert diagnoses(found.findings) == ["verified", "admitted", "other_audience"]
    assert "52b134ec" in found.findings[0].message
    assert found.principal is not None


def test_a_token_of_the_front_door_is_told_apart() -> None:
    """Its log-in is in Redis, where this command does not look; no verdict is made up."""
    known = settings(clients="{}")
    door = replace(known, policy=replace(known.policy, front_door=front_door()))
    sent = good(client_id="authz-two-factor")
    found = asyncio.run(token.examine(sent, door, KEYS, NOW, None))

    assert diagnoses(found.findings) == ["verified", "front_door"]
    assert not problems(found.findings)
    other = asyncio.run(token.examine(good(), door, KEYS, NOW, None))
    assert diagnoses(other.findings)[1] == "refused"


@pytest.mark.parametrize(
    ("text", "diagnosis", "line"),
    [
        pytest.param("", "empty", "AUTHZ_TOKEN", id="none"),
        pytest.param(OPAQUE, "opaque", "access_token_signed_response_alg: RS256", id="opaque"),
        pytest.param("authelia_rt_" + "a" * 50, "wrong_kind", "refresh_token", id="refresh"),
        pytest.param("authelia_ac_" + "a" * 50, "wrong_kind", "the code", id="code"),
        pytest.param(rsa_signer().token({}, {"typ": "JWT"}), "wrong_kind", "id_token", id="id"),
        pytest.param(good(aud=[]), "empty_audience", "requested_audience_mode", id="empty-aud"),
        pytest.param(good(iss=f"{ISSUER}/"), "other_issuer", "issuer.url", id="issuer"),
        pytest.param(rsa_signer("gone").token(), "unknown_kid", "internal", id="kid"),
        pytest.param(rsa_signer(alg="RS384").token(), "algorithm", "issuer.algorithms", id="alg"),
        pytest.param(
            good(iat=NOW + 100, nbf=NOW + 100), "from_the_future", "NTP", id="from-the-future"
        ),
        pytest.param(
            good(exp=NOW + 10**7), "lives_too_long", "issuer.max_lifetime", id="lives-too-long"
        ),
        pytest.param(good()[:-4] + "AAAA", "signature", "log in again", id="signature"),
        pytest.param("not a token", "invalid", "new one", id="junk"),
        pytest.param(good(client_id=ABSENT), "invalid", "new one", id="claims"),
    ],
)
def test_one_thing_is_wrong(text: str, diagnosis: str, line: str) -> None:
    """What is wrong with a token is told, with the line that mends it."""
    found = examine(text)

    assert problems(found.findings) == [diagnosis]
    assert line in found.findings[0].fix
    assert found.principal is None


def test_an_expired_token() -> None:
    """When it was good is said, whose it was, and what else would be in its way."""
    found = examine(good(exp=NOW - 10, iat=NOW - 100, nbf=NOW - 100, scp=[]))

    assert problems(found.findings) == ["expired", "missing_scope"]
    assert "until then it was good" in the(found.findings, "was").message


def test_an_expired_token_for_nobody() -> None:
    """Of two things that are wrong both are told."""
    found = examine(good(exp=NOW - 10, iat=NOW - 100, nbf=NOW - 100, aud=[]))

    assert problems(found.findings) == ["expired", "empty_audience"]


def test_an_audience_of_nobody() -> None:
    """An audience that is no server's, by a slash or a path, is a problem that shows it."""
    found = examine(good(aud=[f"{FILES}/../notes"]))

    assert problems(found.findings) == ["wrong_audience"]
    assert "/../notes" in the(found.findings, "wrong_audience").message


FACTOR = "  files: {upstream: 'http://f:1', second_factor: any}\n"
STAFF = "  files: {upstream: 'http://f:1', groups: [staff]}\n"
DECLARED = "{mcp-2fa: {}, other: {assurance: two_factor}}"
BY_CLIENT = "  files: {upstream: 'http://f:1', second_factor: {evidence: [client]}}\n"


@pytest.mark.parametrize(
    ("changes", "claims", "diagnosis"),
    [
        pytest.param({}, {"scp": []}, "missing_scope", id="missing-scope"),
        pytest.param(
            {"clients": "{mcp-2fa: {scopes: [b]}, all: {}}"}, {}, "scope_not_allowed", id="client"
        ),
        pytest.param({"clients": "{other: {}}"}, {}, "unknown_client", id="unknown-client"),
        pytest.param({"servers": STAFF}, {}, "no_groups", id="no-groups"),
        pytest.param({"servers": STAFF}, {"groups": ["dev"]}, "not_in_group", id="other-group"),
        pytest.param({}, {"sub": ABSENT}, "machine", id="machine"),
        pytest.param(
            {"servers": BY_CLIENT, "clients": DECLARED}, {}, "second_factor", id="no-assurance"
        ),
        pytest.param({"servers": FACTOR}, {}, "second_factor", id="step-up"),
    ],
)
def test_one_thing_is_in_its_way(
    changes: dict[str, Any], claims: dict[str, object], diagnosis: str
) -> None:
    """Why a sound token would not do at its server is told, by the decision itself."""
    found = examine(good(**claims), **changes)

    assert problems(found.findings) == [diagnosis]
    assert found.findings[0].severity is Severity.OK


@pytest.mark.parametrize(
    ("claims", "expected"),
    [({}, ["second_factor"]), ({"mcp_assurance": "totp"}, ["second_factor"]),
     ({"mcp_assurance": "two_factor"}, [])],
)  # fmt: skip
def test_a_marker_that_is_missing_is_named(claims: dict[str, object], expected: list[str]) -> None:
    """What is in the way of a declared client is that Authelia does not sign the claim."""
    found = examine(
        good(**claims),
        issuer=", assurance_claim: mcp_assurance",
        servers=BY_CLIENT,
        clients="{mcp-2fa: {assurance: two_factor}}",
    )

    assert problems(found.findings) == expected
    if expected:
        assert "issuer.assurance_claim" in the(found.findings, "second_factor").fix


def test_without_keys_nothing_is_said_of_it() -> None:
    """A token that nobody can verify is not described."""
    found = asyncio.run(token.examine(good(), settings(), None, NOW, None))

    assert problems(found.findings) == ["no_keys"]


def test_people_that_differ_between_clients() -> None:
    """Two subjects from two clients may be one person with a sector identifier."""
    one = examine(good()).principal
    assert one is not None
    two = replace(one, client_id="other", subject="else")

    assert diagnoses(token.compare([one, two])) == ["different_subjects"]
    assert diagnoses(token.compare([one, replace(two, subject=one.subject)])) == []
    assert diagnoses(token.compare([one, replace(two, client_id=one.client_id)])) == []


@pytest.mark.attack("never-printed")
def test_the_token_is_never_printed() -> None:
    """No part of any token, good or bad, is in any finding."""
    for text in (good(), good(aud=[]), OPAQUE, rsa_signer("gone").token()):
        printed = "\n".join(map(str, examine(text).findings))

        assert not any(part in printed for part in text.split("."))


def test_recorded_claims() -> None:
    """Every recorded access token, signed anew, is understood: nothing of Authelia's is alien."""
    plain = "  files: {upstream: 'http://f:1'}\n  notes: {upstream: 'http://n:1'}\n"
    flows = [flow.get("access") or {} for flow in recorded("flows").values()]
    signed = [flow for flow in flows if "claims" in flow]
    said = set[str]()
    for flow in signed:
        claims = json.dumps(flow["claims"]).encode()
        text = rsa_signer().compact(json.dumps(rsa_signer().header()).encode(), claims)
        found = examine(text, servers=plain, now=flow["claims"]["iat"] + 1)
        said.update(problems(found.findings))

    assert len(signed) > 20
    assert said == {"empty_audience", "machine", "wrong_audience"}
