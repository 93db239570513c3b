"""Fixtures for tests of authz.yaml: two files, and a short way to their problems."""

from collections.abc import Callable

import pytest

from authz.config.load import Settings, read
from authz.config.problems import ConfigError

SMALLEST = """\
issuer:
  url: https://auth.example.com
gateway:
  url: https://mcp.example.com
  tls: {certificate: /run/secrets/tls.crt, key: /run/secrets/tls.key}
servers:
  files:
    upstream: http://files:8000/mcp
"""

# The example of the design, verbatim but for `login`.
EXAMPLE = """\
issuer:
  url: https://auth.example.com            # exactly what tokens say in `iss`
  internal: http://authelia:9091
  login: direct
  serve: true
gateway:
  url: https://mcp.example.com
  listen: 0.0.0.0:8443
  tls: {certificate: /run/secrets/tls.crt, key: /run/secrets/tls.key}
  origins: [https://inspector.example.com]
redis: {url: redis://redis:6379/0, password_file: /run/secrets/redis}
clients:
  claude:
    redirect_uris: [https://claude.ai/api/mcp/auth_callback]
    scopes: [mcp:files, mcp:files:write]
  old-script: {login: direct, scopes: [mcp:files], assurance: two_factor}
  nightly-backup: {machine: true, scopes: [mcp:files]}
servers:
  notes:
    upstream: http://notes:8000/mcp
    limits: [{per: [client, user], rate: 60/minute}]
  files:                                   # https://mcp.example.com/files
    upstream: http://files:8000/mcp
    scopes: [mcp:files]
    groups: [staff]
    machines: [nightly-backup]
    second_factor: any
    limits:
      - {per: [client, user], rate: 60/minute}
      - {per: user, rate: 1000/day}
    tools:                                 # where tools are named, others are refused
      read_*: {}
      delete_*:
        scopes: [mcp:files:write]
        second_factor: {method: totp, max_login_age: 5m}
        limits: [{per: user, rate: 5/minute}]
"""


@pytest.fixture(scope="session")
def smallest() -> str:
    """Return the smallest useful file."""
    return SMALLEST


@pytest.fixture(scope="session")
def example() -> str:
    """Return the design's example."""
    return EXAMPLE


@pytest.fixture(scope="session")
def settings_of() -> Callable[[str], Settings]:
    """Return a reader of texts that are right; secret files are not looked at."""
    return lambda text: read(text, "authz.yaml", {}, secrets=False)


@pytest.fixture(scope="session")
def complaints() -> Callable[[str], list[str]]:
    """Return a reader that tells every problem of a text, as printed."""

    def problems(text: str) -> list[str]:
        try:
            return [str(line) for line in read(text, "authz.yaml", {}, secrets=False).warnings]
        except ConfigError as error:
            return [str(line) for line in error.problems]

    return problems
