"""Registration: an id that says and proves itself, for anybody, at no cost to us."""

import hmac
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata
from pydantic import AnyUrl

from authz.login.clients.client_metadata import LONGEST_NAME, printable_name
from authz.login.clients.redirects import RedirectRules
from authz.login.clients.registration import LONGEST_ID, NotRegisteredError, Registrations
from authz.login.protocol.values import OAuthError
from authz.tokens import base64url
from authz.tokens.sealing import Sealer

NOW = 1_795_380_700.0
CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
URI = "http://127.0.0.1:33418/"
OLD, NEW = "o" * 40, "n" * 40


def registrations(
    *secrets: str, private: frozenset[str] = frozenset({CURSOR}), taken: bool = True
) -> Registrations:
    sealer = Sealer(secrets or (OLD,), lambda: NOW)
    return Registrations(sealer.mac_key("client"), RedirectRules(private), lambda: NOW, taken=taken)


def register(said: Any, by: Registrations | None = None) -> dict[str, Any]:
    by = by or registrations()
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return dict(by.register(body))


def refusal(said: Any, by: Registrations | None = None) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        register(said, by)
    return caught.value


def test_an_official_client_registers() -> None:
    """What it asks for beyond what there is, is replaced (RFC 7591, section 3.2.1)."""
    answer = register(
        {
            "redirect_uris": [URI],
            "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "client_name": "Visual Studio Code",
            "client_uri": "https://code.visualstudio.com",
            "application_type": "native",
            "scope": "mcp:tools offline_access",
            "jwks": {"keys": []},
        }
    )

    client_id = answer.pop("client_id")
    assert answer == {
        "client_id_issued_at": int(NOW),
        "redirect_uris": [URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "client_name": "Visual Studio Code",
    }
    found = registrations().read(client_id)
    assert found.redirect_uris == (URI,)
    assert found.client_name == "Visual Studio Code"
    assert found.issued_at == int(NOW)


def test_the_official_client_reads_the_answer() -> None:
    """What its own models write is registered, and what is answered they read."""
    said = OAuthClientMetadata(redirect_uris=[AnyUrl(URI)], client_name="A")
    answer = register(said.model_dump_json(exclude_none=True).encode())
    read = OAuthClientInformationFull.model_validate(answer)

    assert read.client_id == answer["client_id"]
    assert read.client_secret is None
    assert read.token_endpoint_auth_method == "none"
    assert [str(uri) for uri in read.redirect_uris or []] == [URI]


def test_the_least_registration_is_enough() -> None:
    """Only redirect URIs are needed; null stands for what is not there."""
    answer = register({"redirect_uris": [URI], "client_name": None, "grant_types": None})

    assert "client_name" not in answer
    assert registrations().read(answer["client_id"]).client_name == ""


def test_twice_the_same_is_two_clients() -> None:
    """Each installation has an id of its own, so that one of them can be blocked."""
    by = registrations()
    assert (
        register({"redirect_uris": [URI]}, by)["client_id"]
        != (register({"redirect_uris": [URI]}, by)["client_id"])
    )


def test_redirect_uris_that_are_not_allowed_are_left_out() -> None:
    """A client that also registers a scheme which is not listed keeps the rest."""
    said = ["evil://x", CURSOR, URI, "javascript:alert(1)", "http://evil.example/cb", URI]
    assert register({"redirect_uris": said})["redirect_uris"] == [CURSOR, URI]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"redirect_uris": URI},
        {"redirect_uris": {"0": URI}},
        {"redirect_uris": [URI, 1]},
        {"redirect_uris": [[URI]]},
        {"redirect_uris": [URI] * 33},
        {"redirect_uris": ["javascript:alert(1)", "http://evil.example/cb"]},
        {"redirect_uris": ["https://claude.ai/cb#x", "https://a@claude.ai/cb"]},
    ],
)
def test_without_a_place_to_end_there_is_no_client(said: Any) -> None:
    """No redirect URI, none that is allowed, and none of a wrong shape."""
    assert refusal(said).error == "invalid_redirect_uri"


@pytest.mark.attack("registration-hostile")
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"null",
        b"redirect_uris=x",
        b'{"redirect_uris":["https://a.example/"],"redirect_uris":["https://b.example/"]}',
        b"\xff",
        b"[" * 1000,
        b'{"x":' * 20 + b"1" + b"}" * 20,
        {"redirect_uris": [URI], "client_name": 7},
        {"redirect_uris": [URI], "client_name": ["x"]},
        {"redirect_uris": [URI], "grant_types": ["client_credentials"]},
        {"redirect_uris": [URI], "grant_types": "authorization_code"},
        {"redirect_uris": [URI], "grant_types": []},
        {"redirect_uris": [URI], "response_types": ["token"]},
        {"redirect_uris": [URI], "padding": "x" * (1 << 20)},
        {"redirect_uris": [f"https://a.example/{n}{'x' * 400}" for n in range(5)]},
    ],
)
def test_metadata_of_no_use_is_refused_in_fixed_words(said: Any) -> None:
    """Not strict JSON, too long, or a client that could not log in: told so, and never quoted."""
    refused = refusal(said)
    assert refused.error == "invalid_client_metadata"
    assert refused.status == 400
    assert "a.example" not in refused.description


@given(st.binary(max_size=300))
def test_any_bytes_are_registered_or_refused(body: bytes) -> None:
    """Nothing else comes out of it."""
    assert refusal(body).error in {"invalid_client_metadata", "invalid_redirect_uri"}


@given(
    st.dictionaries(
        st.sampled_from(["redirect_uris", "client_name", "grant_types", "response_types", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.just(URI),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_any_metadata_is_registered_within_bounds_or_refused(said: dict[str, Any]) -> None:
    """What is registered can be read again, and is short."""
    by = registrations()
    try:
        answer = by.register(json.dumps(said).encode())
    except OAuthError:
        return
    client_id = str(answer["client_id"])
    assert len(client_id) <= LONGEST_ID
    assert list(by.read(client_id).redirect_uris) == answer["redirect_uris"]


@pytest.mark.attack("registration-flood")
def test_a_flood_of_registrations_leaves_nothing_behind() -> None:
    """There is nothing that could grow: two instances that share a key share all they know."""
    by = registrations()
    before = {name: repr(vars(by)[name]) for name in vars(by)}
    ids = {register({"redirect_uris": [URI]}, by)["client_id"] for _ in range(1000)}

    assert len(ids) == 1000
    assert {name: repr(vars(by)[name]) for name in vars(by)} == before
    assert all(registrations().read(each).redirect_uris == (URI,) for each in ids)


def test_off_means_off() -> None:
    """Where registration is switched off nobody registers, and who did is not known any more."""
    client_id = register({"redirect_uris": [URI]})["client_id"]
    off = registrations(taken=False)

    assert refusal({"redirect_uris": [URI]}, off).status == 403
    with pytest.raises(NotRegisteredError):
        off.read(client_id)


def test_the_rules_in_force_count_not_those_of_then() -> None:
    """A scheme that was taken from the list is gone from old registrations, too."""
    both = register({"redirect_uris": [CURSOR, URI]})["client_id"]
    only = register({"redirect_uris": [CURSOR]})["client_id"]
    stricter = registrations(private=frozenset())

    assert stricter.read(both).redirect_uris == (URI,)
    with pytest.raises(NotRegisteredError):
        stricter.read(only)


def test_keys_rotate() -> None:
    """An older key still verifies; a key that is gone does not."""
    client_id = register({"redirect_uris": [URI]}, registrations(OLD))["client_id"]

    assert registrations(NEW, OLD).read(client_id).redirect_uris == (URI,)
    with pytest.raises(NotRegisteredError):
        registrations(NEW).read(client_id)
    newer = register({"redirect_uris": [URI]}, registrations(NEW, OLD))["client_id"]
    with pytest.raises(NotRegisteredError):
        registrations(OLD).read(newer)


def forged() -> list[str]:
    client_id = register({"redirect_uris": [URI]})["client_id"]
    signed, _, mac = client_id.rpartition(".")
    own = "dyn." + base64url.encode(json.dumps([1, 0, "", "", ["https://evil.example/"]]).encode())
    return [
        "",
        ".",
        "dyn.",
        "dyn..",
        signed,
        signed + ".",
        f"{own}.{mac}",
        f"{own}.",
        own,
        f"{signed}.{mac[:-1]}",
        f"{signed}.{mac}=",
        f"{signed}.{mac}.",
        f"x{client_id}",
        client_id.removeprefix("dyn."),
        client_id.upper(),
        client_id + "x" * LONGEST_ID,
        client_id + "é",
        f"{signed}.{mac[:-1]}é",
    ]


@pytest.mark.attack("registration-forged")
@pytest.mark.parametrize("client_id", forged(), ids=[str(each) for each in range(len(forged()))])
def test_what_we_did_not_sign_is_no_registration(client_id: str) -> None:
    """Altered, cut, extended, or made by somebody else."""
    with pytest.raises(NotRegisteredError):
        registrations().read(client_id)


@pytest.mark.parametrize("payload", [b"[2,0,'','',[]]", b"[1,0]", b"\xff", b'[2,0,"","",["%s"]]'])
def test_what_another_version_signed_is_read_as_nothing(payload: bytes) -> None:
    """An id of a later authz with the same key, after a step back."""
    key = Sealer((OLD,), lambda: NOW).mac_key("client")[0]
    signed = "dyn." + base64url.encode(payload.replace(b"%s", URI.encode()))
    mac = base64url.encode(hmac.digest(key, signed.encode(), "sha256"))
    with pytest.raises(NotRegisteredError):
        registrations().read(f"{signed}.{mac}")


def test_without_a_key_there_is_nothing_to_sign_with() -> None:
    """Rather no start than ids that anybody can make."""
    with pytest.raises(ValueError, match="nothing to sign with"):
        Registrations([], RedirectRules(), lambda: NOW)


@given(st.data())
def test_no_character_can_be_changed(data: st.DataObject) -> None:
    """One other character anywhere is another id, and none of ours."""
    client_id = register({"redirect_uris": [URI], "client_name": "A"})["client_id"]
    at = data.draw(st.integers(0, len(client_id) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda each: each != client_id[at]))
    with pytest.raises(NotRegisteredError):
        registrations().read(client_id[:at] + other + client_id[at + 1 :])


# --- titles ------------------------------------------------------------------------------------


@pytest.mark.attack("client-title-hostile")
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Claude", "Claude"),
        ("  Claude \n\t Code ", "Claude Code"),
        ("Bücher für Ärzte", "Bücher für Ärzte"),
        ("u\u0308", "ü"),
        ("クロード", "クロード"),
        ("Клод", "Клод"),
        ("<script>alert(1)</script>", "scriptalert(1)/script"),
        ("<img src=x onerror=alert(1)>", "img src=x onerror=alert(1)"),
        ("Claude\u202etxt.exe", "Claudetxt.exe"),
        ("\u2066Claude\u2069", "Claude"),
        ("Cl\u200baude\ufeff", "Claude"),
        ("Claude\x00\x1b[31m\x7f\x9b", "Claude[31m"),
        ("Cla\u00adude", "Claude"),
        ("Claude\u2028verified", "Claude verified"),
        ("Cl\u0430ude", "Cl?ude"),
        ("\u03a1ower", "?ower"),
        ("\u3164\u2800", ""),
        ("\ud800Claude", "Claude"),
        ("\U000e0041Claude", "Claude"),
        ("Z" + "\u0351" * 50, "Z" + "\u0351" * 2),
        ("x" * 5000, "x" * 100),
        ("", ""),
        ("\n", ""),
    ],
)
def test_a_client_name_is_made_harmless(said: str, shown: str) -> None:
    """Markup, controls, what turns or hides text, and letters that pass for others."""
    assert printable_name(said) == shown


@given(st.text(st.characters()))
def test_any_client_name_is_short_and_printable(said: str) -> None:
    """Whatever a client calls itself."""
    shown = printable_name(said)

    assert len(shown) <= LONGEST_NAME
    assert shown.isprintable()
    assert shown == shown.strip()
    assert not set("<>") & set(shown)
    assert unicodedata.normalize("NFC", shown).isprintable()
    assert not any(unicodedata.category(each).startswith("C") for each in shown)
