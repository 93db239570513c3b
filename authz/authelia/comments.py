"""What Authelia's own file needs besides, as comments: keys, sessions, names, lifetimes.

A comment shows where a secret goes and never has one.
"""

from collections.abc import Iterator
from typing import Final

from authz.config import urls
from authz.config.model import Config

_KEYS: Final = """\
--- What belongs in Authelia's own file ---------------------------------------------------------
Secrets and keys, made once:
  authelia crypto rand --length 64 --charset alphanumeric
  authelia crypto pair rsa generate --directory /config/keys
identity_providers:
  oidc:
    hmac_secret: …                # or the environment: {variable}
    jwks:
      - key_id: main
        algorithm: {algorithm}
        use: sig
        key: |
          -----BEGIN PRIVATE KEY-----
          …
"""
_VARIABLE: Final = "AUTHELIA_IDENTITY_PROVIDERS_OIDC_HMAC_SECRET_FILE"
_SESSION: Final = """\
The names, and sessions in Redis. A session in memory outlives its expiration, and it is the
session that bounds how old a TOTP can be: `otp` stays true until it ends.
session:
  expiration: 1h                  # the oldest that a TOTP can be
  inactivity: 15m
  remember_me: -1                 # -1: no log-in that lasts a month
  cookies:
    - domain: {domain}
      authelia_url: {issuer}
  redis: {{host: redis, port: 6379}}
"""
_LIFESPANS: Final = """\
Lifetimes. authz refuses tokens that live longer than issuer.max_lifetime ({longest}).
identity_providers:
  oidc:
    lifespans: {{access_token: 1h, refresh_token: 90m}}
"""
_RESTING: Final = """\
A client of the front door that rests for longer than refresh_token has its person log in again.
"""
_INTERNAL: Final = """\
Authelia takes its own name from X-Forwarded-Proto and X-Forwarded-Host. authz and the rendered
Envoy send both; another proxy before it must send X-Forwarded-Proto: https and
X-Forwarded-Host: {authority}.
"""


def configuration_comments(config: Config) -> Iterator[str]:
    """Yield the lines, without comment marks."""
    algorithms = config.issuer.algorithms
    algorithm = "RS256" if "RS256" in algorithms else algorithms[0]
    issuer = config.issuer.url
    parts = urls.split(issuer)
    _, _, parent = parts.host.partition(".")
    domain = parent if "." in parent else parts.host
    texts = (
        _KEYS.format(variable=_VARIABLE, algorithm=algorithm),
        _SESSION.format(domain=domain, issuer=issuer),
        _LIFESPANS.format(longest=_span(config.issuer.max_lifetime)),
        _RESTING if config.logs_in else "",
        _INTERNAL.format(authority=issuer.removeprefix("https://").partition("/")[0]),
    )
    for text in texts:
        yield from text.splitlines()


def _span(seconds: float) -> str:
    """Return a duration in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
