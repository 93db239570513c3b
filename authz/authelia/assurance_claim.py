"""The signed claim of `issuer.assurance_claim`: how Authelia puts a client's assurance into tokens.

Invariant: a token has the value of its own client's entry and no other
(tests/authelia/test_assurance_claim.py): each value has a claims policy of its own, and what the
other policies have under the claim's name is in no access token.
"""

import json
from collections.abc import Mapping
from typing import Final

from authz.authelia.clients import GROUPS, asks_groups, assured_policy
from authz.config.model import Config, RuleConfig

ABOUT: Final = (
    "Constants for issuer.assurance_claim: the claims policy of a client says which of them its",
    "tokens carry.",
)
# Under this key, whatever the claim is called: a name may hold what no key of Authelia's can.
_KEY: Final = "authz_assurance"
# Authelia does not start where a scope of a client brings a claim that its claims policy lacks.
_NOTHING: Final = "none"


def values(config: Config) -> tuple[str, ...]:
    """Return the words that tokens are to say; none where no claim is named, or none is needed."""
    if config.issuer.assurance_claim is None:
        return ()
    said = {client.assurance for client in config.direct.values() if client.assurance is not None}
    return tuple(sorted(said))


def claim_of(config: Config) -> str | None:
    """Return the claim that says them; None where none has to."""
    return config.issuer.assurance_claim if values(config) else None


def policies(config: Config) -> Mapping[str, Mapping[str, object]]:
    """Return the claims policy of each word."""
    groups = [GROUPS] if asks_groups(config, config.servers) else []
    carried = {"access_token": [*groups, claim_of(config)]}
    return {assured_policy(word): carried | custom_claims(config, word) for word in values(config)}


def custom_claims(config: Config, word: str = _NOTHING) -> dict[str, object]:
    """Return what makes the claim known to a claims policy; nothing where there is no claim."""
    claim = claim_of(config)
    if claim is None:
        return {}
    return {"custom_claims": {_KEY: {"name": claim, "attribute": _attribute(word)}}}


def definitions(config: Config) -> dict[str, object]:
    """Return the constants, in the Common Expression Language."""
    said = values(config)
    needed = (*said, _NOTHING) if said else ()
    return {_attribute(word): {"expression": json.dumps(word)} for word in needed}


def answers(rule: RuleConfig) -> bool:
    """Tell whether a rule takes a client's assurance for the second factor that it asks for."""
    factor = rule.second_factor
    return factor is not None and "client" in factor.evidence and factor.max_login_age is None


def _attribute(word: str) -> str:
    return f"authz_{word}"
