"""The signed marker at Authelia: a constant of each client's own; the real one has signed it."""

from collections.abc import Callable
from typing import Any

import pytest

from authz.authelia import Implied, implied
from authz.config.load import read
from tests.authelia.conftest import SMALLEST

Of = Callable[[str], Implied]
FILES = "  files: {upstream: 'http://files:8000/mcp', scopes: [mcp:files], second_factor: any}\n"
DOOR = "redis: {url: 'redis://redis:6379'}\nfront_door: {key_file: /run/secrets/door.pem}\n"


@pytest.fixture(scope="module")
def marked() -> Of:
    """Return a renderer of texts whose issuer names the claim."""

    def render(text: str, claim: str = "mcp_assurance") -> Implied:
        issuer = SMALLEST.replace("com}\n", f"com, assurance_claim: '{claim}'}}\n", 1)
        return implied(read(issuer + text, "authz.yaml", {}, secrets=False).config)

    return render


def oidc(result: Implied) -> Any:
    providers: Any = result.values["identity_providers"]
    return providers["oidc"]


def clients(result: Implied) -> dict[str, Any]:
    return {client["client_id"]: client for client in oidc(result)["clients"]}


def said(result: Implied, client: str) -> object:
    """Return what the access tokens of a client say: by its policy, and by the definitions."""
    policy = oidc(result)["claims_policies"].get(clients(result)[client].get("claims_policy"), {})
    names = {each["name"]: each["attribute"] for each in policy.get("custom_claims", {}).values()}
    definitions: Any = result.values["definitions"]
    attributes = definitions["user_attributes"]
    return {
        claim: attributes[names[claim]]["expression"]
        for claim in policy.get("access_token", ())
        if claim != "groups"
    }


def test_every_client_says_its_own_word_and_no_other(marked: Of) -> None:
    """The word of a client's entry is in its tokens; where it has none, nothing is."""
    result = marked(
        "clients: {a: {assurance: two_factor}, b: {assurance: totp}, c: {}, m: {machine: true}}\n"
        "servers:\n"
        f"{FILES}  all: {{upstream: 'http://all:8000/mcp', machines: [m], groups: [staff]}}\n"
    )

    assert said(result, "a") == {"mcp_assurance": '"two_factor"'}
    assert said(result, "b") == {"mcp_assurance": '"totp"'}
    assert said(result, "c") == {}
    assert "claims_policy" not in clients(result)["m"]
    assert oidc(result)["claims_policies"]["authz"]["access_token"] == ["groups"]


def test_the_scopes_of_what_it_may_answer_bring_it(marked: Of) -> None:
    """A client asks for the scopes of a challenge: those that need the marker have it with them."""
    result = marked(
        "clients: {a: {assurance: two_factor}}\n"
        "servers:\n"
        "  files: {upstream: 'http://files:8000/mcp', scopes: [mcp:files], groups: [staff],\n"
        "    tools: {wipe: {scopes: [mcp:wipe], second_factor: any}}}\n"
        "  notes:\n"
        "    upstream: http://notes:8000/mcp\n"
        "    tools: {wipe: {scopes: [notes:wipe], second_factor: any}, look: {scopes: [look]}}\n"
        "  aged: {upstream: 'http://aged:8000/mcp', scopes: [aged],\n"
        "    second_factor: {max_login_age: 5m, evidence: [client, token]}}\n"
        "  stepped: {upstream: 'http://s:8000/mcp', scopes: [stepped],\n"
        "    second_factor: {evidence: [step_up]}}\n"
    )

    assert {name: each["claims"] for name, each in oidc(result)["scopes"].items()} == {
        "mcp:files": ["groups", "mcp_assurance"],
        "mcp:wipe": [],
        "notes:wipe": ["mcp_assurance"],
        "look": [],
        "aged": [],
        "stepped": [],
    }
    assert set(clients(result)["a"]["scopes"]) > {"mcp:files", "notes:wipe"}


def test_authelia_knows_the_claim_in_every_policy_of_a_client(marked: Of) -> None:
    """4.39.20 does not start where a client's scope brings a claim that its policy lacks.

    Ours at the front door are such clients: it is known there, says nothing, and is in no token.
    """
    result = marked(
        f"{DOOR}clients: {{a: {{login: direct, assurance: two_factor}}, b: {{login: direct}}}}\n"
        f"servers:\n{FILES}  all: {{upstream: 'http://all:8000/mcp', groups: [staff]}}\n"
    )

    policies = oidc(result)["claims_policies"]
    assert set(policies) == {"authz-front-door", "authz", "authz-two_factor"}
    for policy in policies.values():
        (custom,) = policy["custom_claims"].values()
        assert custom["name"] == "mcp_assurance"
    assert said(result, "authz-one-factor") == said(result, "authz-two-factor") == {}
    assert said(result, "b") == {}
    nothing = policies["authz"]["custom_claims"]["authz_assurance"]["attribute"]
    definitions: Any = result.values["definitions"]
    assert definitions["user_attributes"][nothing] == {"expression": '"none"'}


def test_a_claim_may_have_a_name_that_no_key_of_authelia_may_have(marked: Any) -> None:
    """The name stands as a value only: 4.39.20 takes dots, slashes and colons there."""
    name = "https://example.com/assurance.v1"
    result = marked(f"clients: {{a: {{assurance: totp}}}}\nservers:\n{FILES}", name)

    assert said(result, "a") == {name: '"totp"'}
    assert oidc(result)["scopes"]["mcp:files"] == {"claims": [name]}
    assert name not in oidc(result)["claims_policies"]["authz-totp"]["custom_claims"]


def test_where_no_scope_can_bring_it_that_is_told(marked: Of) -> None:
    """A rule without a scope that Authelia can define never gets the marker: the text says so."""
    text = marked(
        "clients: {a: {assurance: totp}}\n"
        f"servers:\n{FILES}  bare: {{upstream: 'http://bare:8000/mcp', second_factor: any}}\n"
        "  odd: {upstream: 'http://odd:8000/mcp', scopes: ['a#b', email], second_factor: any}\n"
    ).yaml()

    assert "write one into servers.bare.scopes, for example mcp:bare" in text
    assert "write one into servers.odd.scopes, for example mcp:odd" in text
    assert "servers.files.scopes" not in text


@pytest.mark.parametrize("entry", ["{login: direct}", "{redirect_uris: ['https://a.example/b']}"])
def test_nothing_is_printed_where_nobody_says_it(marked: Of, of: Of, entry: str) -> None:
    """Without a direct client that has an assurance it is as if no claim were named."""
    text = f"{DOOR}clients: {{a: {entry}}}\nservers:\n{FILES}"

    assert marked(text).values == of(text).values


def test_nothing_is_printed_where_no_claim_is_named(of: Of) -> None:
    """An assurance alone needs nothing of Authelia but the policy."""
    result = of(f"clients: {{a: {{assurance: totp}}}}\nservers:\n{FILES}")

    assert "definitions" not in result.values
    assert "claims_policies" not in oidc(result)
    assert oidc(result)["scopes"] == {"mcp:files": {"claims": []}}
