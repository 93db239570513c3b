"""An Authelia that somebody has: its address is read, its file kept, and no secret of it told."""

from pathlib import Path

import pytest

from authz.setup.answers import AnswerError
from authz.setup.discovery import check_issuer, domain_of, find_issuer


def written(folder: Path, text: str) -> Path:
    path = folder / "configuration.yml"
    path.write_text(text)
    return path


def test_the_issuer_is_the_address_of_its_cookie(tmp_path: Path) -> None:
    """Templates in the file, which are no YAML, do not matter."""
    text = """
session:
  secret: {{ secret "/run/secrets/session" | squote }}
  cookies:
    - {domain: example.com, authelia_url: 'https://auth.example.com/'}
identity_providers:
  oidc:
    jwks:
      - key: {{ secret "/config/private.pem" | mindent 10 "|" | msquote }}
"""
    path = written(tmp_path, text)

    assert find_issuer(path) == "https://auth.example.com"
    assert domain_of("https://auth.example.com") == "example.com"
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "session: 1",
        "session: {cookies: 1}",
        "session: {cookies: [1, {authelia_url: 5}]}",
        "session: {cookies: [{authelia_url: 'https://a.b.c'}, {authelia_url: 'https://d.e.f'}]}",
        "session: {secret: hunter2hunter2",
        "session: {secret: hunter2hunter2, cookies: [{authelia_url: 'https://a.b/#{x}'}]}",
        "session: {cookies: [{authelia_url: 'http://auth.example.com'}]}",
        "&a [*a, hunter2hunter2]: {",
    ],
)
@pytest.mark.attack("authz init")
def test_what_does_not_tell_is_said_to_be_so(tmp_path: Path, text: str) -> None:
    """With what to do, and without a word of the file: a secret may stand in it."""
    with pytest.raises(AnswerError) as refused:
        find_issuer(written(tmp_path, text))

    assert "hunter2" not in str(refused.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A megabyte is more than any configuration."""
    with pytest.raises(AnswerError, match="1 MiB"):
        find_issuer(written(tmp_path, "#" * ((1 << 20) + 1)))


@pytest.mark.parametrize(
    "url", ["auth.example.com", "https://a.b/'", "https://a.b\nx", "file:///x"]
)
def test_an_issuer_is_a_url(url: str) -> None:
    """What goes into YAML is plain."""
    with pytest.raises(AnswerError, match=r"^issuer: "):
        check_issuer(url)


def test_a_file_that_is_not_there_is_a_wrong_answer(tmp_path: Path) -> None:
    """It is what was asked that is wrong, so the command ends as it does for any wrong answer."""
    with pytest.raises(AnswerError, match=r"none\.yml: No such file or directory"):
        find_issuer(tmp_path / "none.yml")
