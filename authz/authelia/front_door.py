"""Our two clients at Authelia, by which the front door and the step-up log people in.

Both are confidential, authenticate by private_key_jwt (RFC 7523) and must push their authorization
requests (RFC 9126). The clients that log in at the front door are not registered at Authelia.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from authz.authelia.assurance_claim import custom_claims
from authz.authelia.clients import (
    GROUPS,
    OFFLINE,
    AutheliaClient,
    asks_groups,
    signing_algorithms,
    signing_client,
)
from authz.config import urls
from authz.config.key_files import PublicKey
from authz.config.model import Config

FRONT_DOOR: Final = "authz-front-door"
# In the ID token, so that a page can say whose account it is about; of the scope `profile`.
ACCOUNT: Final = "preferred_username"
EMAIL: Final = "email"  # claim and scope
NAME: Final = "name"  # as ACCOUNT
_FIXED: Final = ("openid", "profile")
_CALLBACK: Final = "/authz/callback"
_POLICIES: Final[Mapping[str, tuple[str, ...]]] = {
    "one_factor": (_CALLBACK, "/authz/log-ins/callback"),
    "two_factor": (_CALLBACK, "/authz/step-up/callback"),
}
# Of the page on which people approve calls, where a tool asks for that.
_APPROVAL_CALLBACKS: Final = {
    "one_factor": "/authz/approval/one-factor/callback",
    "two_factor": "/authz/approval/callback",
}
# Of the operators' console, whose groups the issuer is asked for at each request.
_CONSOLE_CALLBACK: Final = "/authz/admin/callback"
# Of the log-ins for web interfaces, where there are any.
_PAGE_CALLBACKS: Final = {
    "one_factor": "/authz/page/one-factor/callback",
    "two_factor": "/authz/page/callback",
}
_OURS: Final = (
    "As these two clients authz logs people in (front_door): Authelia asks for a second factor by",
    "the client's policy. Clients of the front door are not registered here. consent_mode is",
    "implicit because authz asks for consent itself, each time.",
)
_TWICE: Final = (
    "Authelia asks all the same where offline_access is asked for (seen with 4.39.20 and later),",
    "as front_door.refresh_tokens has it: people consent twice, on a page of ours and on one of",
    "Authelia's. With refresh_tokens: never there is one page, and no refresh token.",
)


def our_clients(config: Config, key: PublicKey | None) -> Iterator[AutheliaClient]:
    """Yield the clients of the front door; none where there is no front door.

    Args:
        config: authz.yaml.
        key: the public half of `front_door.key_file`; None where it was not read.
    """
    door = config.front_door
    if door is None:
        return
    for policy, fixed in _POLICIES.items():
        callbacks = (*fixed, _APPROVAL_CALLBACKS[policy]) if config.asks_approvals else fixed
        if config.console is not None and policy == "two_factor":
            callbacks = (*callbacks, _CONSOLE_CALLBACK)
        callbacks = (*callbacks, _PAGE_CALLBACKS[policy]) if config.pages else callbacks
        client_id = getattr(door, policy)
        credentials, notes = signing_client(key, door.key_id, "front_door.key_file")
        refreshes = door.refresh_tokens != "never"
        values = {
            "client_id": client_id,
            # Authelia shows it on its own consent page: where the person comes from.
            "client_name": f"MCP servers at {urls.split(config.gateway.url).host}",
            **credentials,
            "redirect_uris": [f"{config.gateway.url}{path}" for path in callbacks],
            "scopes": _scopes(config),
            "audience": [config.resource(name) for name in config.servers],
            "authorization_policy": policy,
            "consent_mode": "implicit",
            "grant_types": ["authorization_code", *(["refresh_token"] if refreshes else [])],
            **({} if refreshes else {"lifespan": FRONT_DOOR}),
            "response_types": ["code"],
            "require_pushed_authorization_requests": True,
            "require_pkce": True,
            "pkce_challenge_method": "S256",
            **signing_algorithms(config, config.servers, id_token=True),
            "claims_policy": FRONT_DOOR,
        }
        about = (*_OURS, *_TWICE) if refreshes else _OURS
        first = {"": about} if policy == "one_factor" else {}
        yield AutheliaClient(values, {**notes, **first})


def claims_policy(config: Config) -> dict[str, object]:
    """Return the claims policy of both."""
    groups = {"access_token": [GROUPS]} if _asks_groups(config) else {}
    name = (NAME,) if config.pages else ()
    return {"id_token": [ACCOUNT, *name, *_email(config)], **groups, **custom_claims(config)}


def _asks_groups(config: Config) -> bool:
    """Tell whether a rule asks for groups, or a web interface is told them."""
    return bool(config.pages) or asks_groups(config, config.servers)


def _email(config: Config) -> tuple[str, ...]:
    """Return the scope and claim by which people's e-mail addresses come, where they are asked."""
    door = config.front_door
    return (EMAIL,) if door is not None and door.email_addresses else ()


def _scopes(config: Config) -> list[str]:
    # Where the console alone asks for them, they are read at the issuer, and stand in no token.
    groups = [GROUPS] if config.console is not None or _asks_groups(config) else []
    offline = [OFFLINE] if _refreshes(config) else []
    first, *others = _FIXED
    asked = config.scopes_of(*config.servers)
    return list(dict.fromkeys([first, *offline, *others, *_email(config), *groups, *asked]))


def lifespans(config: Config) -> dict[str, object]:
    """Return how long access tokens live where there are no refresh tokens; empty elsewhere."""
    door = config.front_door
    if door is None or _refreshes(config):
        return {}
    return {"custom": {FRONT_DOOR: {"access_token": f"{int(door.access_token_lifetime)}s"}}}


def _refreshes(config: Config) -> bool:
    return config.front_door is None or config.front_door.refresh_tokens != "never"
