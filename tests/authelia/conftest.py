"""Fixtures for tests of Authelia's configuration: a reader of authz.yaml texts."""

from collections.abc import Callable

import pytest

from authz.authelia import Implied, implied
from authz.config.load import read

SMALLEST = """\
issuer: {url: https://auth.example.com}
gateway:
  url: https://mcp.example.com
  tls: {certificate: /run/secrets/tls.crt, key: /run/secrets/tls.key}
"""


@pytest.fixture(scope="session")
def of() -> Callable[[str], Implied]:
    """Return a renderer of authz.yaml texts; issuer and gateway are there already."""

    def render(text: str) -> Implied:
        return implied(read(SMALLEST + text, "authz.yaml", {}, secrets=False).config)

    return render
