"""The strict reading of a compact JWS, before any signature is looked at."""

import json

import pytest

from authz.core.reason import Reason
from authz.tokens.jose import is_opaque, read_jws
from authz.tokens.jwk import DEFAULT_ALGORITHMS
from tests.tokens.token_factory import ABSENT, CLAIMS, b64, ec_signer, refusal

SIGNATURE = b64(bytes(64))
HEADER = b'{"alg":"ES256","kid":"mcp-es256","typ":"at+jwt"}'
PAYLOAD = json.dumps(CLAIMS).encode()


def compact(header: bytes = HEADER, payload: bytes = PAYLOAD) -> str:
    return f"{b64(header)}.{b64(payload)}.{SIGNATURE}"


KIDS_REFUSED: tuple[object, ...] = (
    "", "k" * 129, "k" * 6000, None, 7, True, ["a"], {}, "a b", "a\n", "a\r\nb: c",
    "a\x00", "a\x7f", "ä", "\ud800", "' OR 1=1 --", "\u202ea",
)  # fmt: skip


def with_header(**changes: object) -> str:
    return compact(json.dumps(ec_signer().header(**changes)).encode())


def reason_of(token: str) -> Reason | None:
    return refusal(lambda: read_jws(token, DEFAULT_ALGORITHMS))


def test_a_well_formed_token_is_read() -> None:
    """A compact JWS with an access token's header gives its members back."""
    read = read_jws(compact(), DEFAULT_ALGORITHMS)

    assert (read.algorithm, read.key_id) == ("ES256", "mcp-es256")
    assert f"{b64(HEADER)}.{b64(PAYLOAD)}".encode() == read.signed
    assert read.claims == CLAIMS


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param("authelia_at_EU2c.9aF-_", True, id="authelia-access-token"),
        pytest.param("ya29.a0AfH6SMBx", True, id="another-issuers"),
        pytest.param("0123456789abcdef", True, id="no-dot"),
        pytest.param(compact(), False, id="jwt"),
        pytest.param("authelia_rt_EU2c.9aF-_", Reason.TOKEN_WRONG_KIND, id="refresh-token"),
        pytest.param("authelia_ac_EU2c.9aF-_", Reason.TOKEN_WRONG_KIND, id="code"),
        pytest.param("authelia_dc_EU2c", Reason.TOKEN_WRONG_KIND, id="whatever-else-authelia-has"),
        pytest.param("authelia_rt_a.b.c", Reason.TOKEN_WRONG_KIND, id="refresh-token-like-a-jwt"),
        pytest.param("", Reason.TOKEN_INVALID, id="empty"),
        pytest.param("a.b", True, id="one-dot"),
        pytest.param("eyJhbGciOiJSUzI1NiJ9", Reason.TOKEN_INVALID, id="cut-jwt"),
        pytest.param("eyJhbGciOiJSUzI1NiJ9.e30", Reason.TOKEN_INVALID, id="unsigned-jwt"),
        pytest.param("a.b.c.d.e", Reason.TOKEN_INVALID, id="five-parts"),
        pytest.param("a..c", Reason.TOKEN_INVALID, id="detached-payload"),
        pytest.param(".a.b", Reason.TOKEN_INVALID, id="no-header"),
        pytest.param("a.b.", Reason.TOKEN_INVALID, id="no-signature"),
        pytest.param("a.", Reason.TOKEN_INVALID, id="empty-second-part"),
        pytest.param("authelia_at_a b", Reason.TOKEN_INVALID, id="blank"),
        pytest.param("authelia_at_ab\n", Reason.TOKEN_INVALID, id="newline"),
        pytest.param("authelia_at_ab=", Reason.TOKEN_INVALID, id="padding"),
        pytest.param("authelia_at_äb", Reason.TOKEN_INVALID, id="not-ascii"),
        pytest.param("authelia_at_\ud800", Reason.TOKEN_INVALID, id="lone-surrogate"),
        pytest.param("authelia_at_a\x00", Reason.TOKEN_INVALID, id="nul"),
        pytest.param("a" * 8192, True, id="8192-characters"),
        pytest.param("a" * 8193, Reason.TOKEN_INVALID, id="8193-characters"),
    ],
)
@pytest.mark.attack("not-an-access-token")
def test_the_shape_tells_jwts_opaque_tokens_and_what_is_neither(
    token: str, expected: bool | Reason
) -> None:
    """Only what looks like nothing else passes for opaque: opaque tokens leave the house later."""
    actual = refusal(lambda: is_opaque(token)) or is_opaque(token)

    assert expected == actual


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(f"{compact()}=", id="padding"),
        pytest.param(f"{compact()}==", id="padding-twice"),
        pytest.param(f" {compact()}", id="blank-before"),
        pytest.param(f"{compact()}\n", id="newline-after"),
        pytest.param(compact().replace(".", ". ", 1), id="blank-inside"),
        pytest.param(compact().replace(".", "\r\n.", 1), id="folded"),
        pytest.param(compact()[:-1] + "+", id="plus"),
        pytest.param(compact()[:-1] + "/", id="slash"),
        pytest.param(compact()[:-1] + "é", id="not-ascii"),
        pytest.param(compact()[:-1] + "B", id="trailing-bits"),
        pytest.param(compact() + "AAA", id="impossible-length"),
        pytest.param(f".{b64(PAYLOAD)}.{SIGNATURE}", id="empty-header"),
        pytest.param(f"{b64(HEADER)}..{SIGNATURE}", id="empty-payload"),
        pytest.param(f"{b64(HEADER)}.{b64(PAYLOAD)}.", id="empty-signature"),
        pytest.param(f"{b64(HEADER)}.{b64(PAYLOAD)}", id="two-segments"),
        pytest.param(f"{compact()}.AAAA", id="four-segments"),
        pytest.param(f"{compact()}.AAAA.AAAA", id="jwe"),
        pytest.param("", id="empty"),
        pytest.param("..", id="dots"),
    ],
)
@pytest.mark.attack("one-spelling")
def test_a_token_has_one_spelling(token: str) -> None:
    """Whatever is not three canonical base64url segments is refused."""
    assert Reason.TOKEN_INVALID is reason_of(token)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("a" * 8193, id="8193-characters"),
        pytest.param(compact(payload=b"[" * 1_000_000), id="1-MB-segment"),
        pytest.param(compact(payload=b'{"a":"' + b"x" * 8000 + b'"}'), id="long-claim"),
        pytest.param(compact(payload=b"[" * 5000), id="5000-deep"),
        pytest.param(compact(payload=b'{"a":' * 500 + b"1" + b"}" * 500), id="500-deep-objects"),
        pytest.param(compact(payload=b'{"exp":' + b"9" * 5000 + b"}"), id="5000-digits"),
        pytest.param(compact(header=b"[" * 5000), id="deep-header"),
        pytest.param(compact(header=b'{"alg":' + b"9" * 5000 + b"}"), id="5000-digit-header"),
    ],
)
@pytest.mark.attack("token-too-large")
def test_nothing_large_or_deep_is_read(token: str) -> None:
    """Length is looked at before anything is decoded, depth and digits before they cost."""
    assert Reason.TOKEN_INVALID is reason_of(token)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"alg":"ES256","typ":"at+jwt","alg":"ES256"}', id="duplicate-member"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt","\\u0061lg":"none"}', id="escaped-twin"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt","x":NaN}', id="nan"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt","x":Infinity}', id="infinity"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt","x":{"a":1,"a":2}}', id="inner-duplicate"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt"}{}', id="two-documents"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt"}x', id="trailing-bytes"),
        pytest.param(b'{"alg":"ES256","typ":"at+jwt","x":"\xff"}', id="bad-utf-8"),
        pytest.param(b'\xef\xbb\xbf{"alg":"ES256","typ":"at+jwt"}', id="bom"),
        pytest.param('{"alg":"ES256","typ":"at+jwt"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'["alg","ES256","typ","at+jwt"]', id="array"),
        pytest.param(b'"at+jwt"', id="string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"7", id="number"),
        pytest.param(b"{", id="cut"),
    ],
)
@pytest.mark.parametrize("part", ["header", "payload"])
@pytest.mark.attack("json-of-a-token")
def test_header_and_payload_are_strict_json_objects(part: str, data: bytes) -> None:
    """What two JSON parsers could read differently is refused in the header and in the claims."""
    token = compact(header=data) if part == "header" else compact(payload=data)

    assert Reason.TOKEN_INVALID is reason_of(token)


@pytest.mark.parametrize(
    "alg",
    [
        *(
            "none",
            "None",
            "NONE",
            "nOnE",
            "",
            "HS256",
            "HS384",
            "HS512",
            "es256",
            "ES256 ",
            "EdDSA",
        ),
        *("RS384", "ES384", "PS256", "RSA-OAEP", "dir", ABSENT, None, True, 256, ["ES256"], {}),
        *(["none", "ES256"], "ES256\u0000", "\uff25S256"),
    ],
    ids=repr,
)
@pytest.mark.attack("alg-none")
def test_only_a_configured_algorithm_is_looked_at(alg: object) -> None:
    """`alg` is one of the allow-list, letter by letter; `none` and HMAC never are."""
    assert Reason.TOKEN_INVALID is reason_of(with_header(alg=alg))


@pytest.mark.parametrize(
    ("typ", "expected"),
    [
        ("at+jwt", None),
        ("AT+JWT", None),
        ("application/at+jwt", None),
        ("Application/AT+jwt", None),
        ("JWT", Reason.TOKEN_WRONG_KIND),
        ("jwt", Reason.TOKEN_WRONG_KIND),
        ("application/jwt", Reason.TOKEN_WRONG_KIND),
        *(
            (typ, Reason.TOKEN_INVALID)
            for typ in (
                ABSENT, None, "", "at+jwt ", " at+jwt", "at jwt", "at+jwt;v=1", "text/at+jwt",
                "logout+jwt", "dpop+jwt", "at+JWT\n", "\uff41t+jwt", ["at+jwt"], {"at+jwt": 1},
                True,
            )
        ),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.attack("typ-not-access-token")
def test_only_access_tokens_pass_by_type(typ: object, expected: Reason | None) -> None:
    """RFC 9068, section 4: at+jwt, with or without `application/`; an ID token is told so."""
    assert expected is reason_of(with_header(typ=typ))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crit", ["b64"]),
        ("crit", ["exp"]),
        ("crit", []),
        ("crit", None),
        ("b64", False),
        ("b64", True),
        ("zip", "DEF"),
        ("enc", "A128GCM"),
        ("jwk", ec_signer().jwk()),
        ("jwk", None),
        ("jku", "https://evil.example/jwks.json"),
        ("x5u", "https://evil.example/cert.pem"),
        ("x5c", ["MIIB"]),
    ],
)
@pytest.mark.attack("header-brings-its-key")
def test_a_header_that_steers_the_verifier_is_refused(name: str, value: object) -> None:
    """Critical extensions, unencoded payloads, compression and keys in the header are refused."""
    assert Reason.TOKEN_INVALID is reason_of(with_header(**{name: value}))


@pytest.mark.parametrize(
    ("kid", "expected"),
    [
        ("mcp-es256", None),
        (ABSENT, None),
        ("urn:ietf:params:oauth:jwk-thumbprint:sha-256:NzbLsXh8", None),
        ("k" * 128, None),
        ("../../../dev/null", None),
        *((kid, Reason.TOKEN_INVALID) for kid in KIDS_REFUSED),
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.attack("kid-malformed")
def test_a_kid_is_a_short_visible_string(kid: object, expected: Reason | None) -> None:
    """A `kid` is absent, or 1 to 128 visible ASCII characters."""
    assert expected is reason_of(with_header(kid=kid))


@pytest.mark.parametrize("name", ["cty", "x5t", "x5t#S256"])
@pytest.mark.parametrize("value", [None, 7, ["a"], {}], ids=repr)
def test_registered_header_members_have_their_type(name: str, value: object) -> None:
    """RFC 7515, section 4.1: a registered member that is ignored is still what it must be."""
    assert Reason.TOKEN_INVALID is reason_of(with_header(**{name: value}))


def test_unknown_header_members_are_ignored() -> None:
    """RFC 7515, section 4: what is not understood and not critical is ignored."""
    token = with_header(x5t="abc", cty="x", anything={"a": [1]})

    assert read_jws(token, DEFAULT_ALGORITHMS).key_id == "mcp-es256"
