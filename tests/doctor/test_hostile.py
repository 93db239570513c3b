"""Whatever an issuer, a token or an Envoy says, the doctor ends with findings."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.doctor import envoy, issuer, token
from authz.doctor.issuer import IssuerReport
from authz.setup.certificates import write_certificates
from authz_demo.serving import ANYWHERE, ServingCertificate, serve
from tests.doctor import kit
from tests.doctor.kit import answering, problems, saying
from tests.support.examples import examples
from tests.tokens.token_factory import NOW, key_set, rsa_signer

pytestmark = pytest.mark.slow

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)
MEMBERS = st.sampled_from(["issuer", "jwks_uri", "code_challenge_methods_supported"])
KEYS = key_set(rsa_signer().jwk())
CLAIMS = st.sampled_from(["aud", "sub", "client_id", "scp", "groups", "exp", "iat", "iss"])
FILTER = "envoy.filters.http.ext_authz"
PARTS = st.sampled_from(["name", "typed_config", "typed_per_filter_config", FILTER])


@examples(10)
@given(st.dictionaries(MEMBERS, JSON), JSON)
def test_issuers(metadata: dict[str, object], key_set: object) -> None:
    """Metadata and key sets of any content are told to be wrong, or are right."""
    app = answering(saying(**metadata), (200, json.dumps(key_set).encode()))

    async def look(url: str) -> IssuerReport:
        return await issuer.examine(kit.settings(url).config.issuer)

    found: IssuerReport = kit.against(app, look)

    assert found.findings
    assert all(str(each).replace("\n", "").isprintable() for each in found.findings)


@given(st.dictionaries(CLAIMS, JSON))
def test_signed_tokens(claims: dict[str, object]) -> None:
    """Claims of any content, well signed, end in findings of printable lines."""
    text = rsa_signer().token(claims)
    found = asyncio.run(token.examine(text, kit.settings(), KEYS, NOW, None))

    assert found.findings
    assert all(str(each).replace("\n", "").isprintable() for each in found.findings)


@given(st.text())
def test_texts_for_tokens(text: str) -> None:
    """A text of any content is no token."""
    found = asyncio.run(token.examine(text, kit.settings(), KEYS, NOW, None))

    assert len(problems(found.findings)) == 1


@given(st.recursive(JSON, lambda inner: st.dictionaries(PARTS, inner)))
def test_envoys(document: object) -> None:
    """A configuration dump of any content is read."""
    assert isinstance(envoy.read(document).filters, tuple)


def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    """A certificate of an unknown authority is told apart from nobody being there."""
    paths = write_certificates(tmp_path / "tls", ["127.0.0.1"])

    async def look() -> IssuerReport:
        tls = ServingCertificate(paths.certificate, paths.key)
        async with serve(answering(saying()), ANYWHERE, tls) as port:
            asked = kit.settings(f"https://127.0.0.1:{port}").config.issuer
            return await issuer.examine(asked)

    found = asyncio.run(look())

    assert problems(found.findings) == ["tls"]
    assert "SSL_CERT_FILE" in found.findings[0].fix


@pytest.mark.parametrize("date", ["", "x", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_dates(date: str) -> None:
    """A Date that is none, or of another age, is no crash."""
    app = answering(saying(), (500, b""), date=date)

    async def look(url: str) -> IssuerReport:
        return await issuer.examine(kit.settings(url).config.issuer)

    assert kit.against(app, look).findings
