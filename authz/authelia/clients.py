"""The clients of authz.yaml as Authelia's `identity_providers.oidc.clients`.

A client gets what its own entry and the servers that it may use imply, and nothing more.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from authz.config.key_files import PublicKey
from authz.config.model import ClientConfig, Config, IntrospectionConfig, RuleConfig

# Never a digest: Authelia refuses to start until somebody has put one in its place.
PLACEHOLDER: Final = "$REPLACE$"
POLICY: Final = "authz"
GROUPS: Final = "groups"
OFFLINE: Final = "offline_access"
LOOPBACK: Final = ("http://127.0.0.1/callback", "http://[::1]/callback")
_FIRST: Final = "mcp"  # the client of a file that names none
_POLICIES: Final = {None: "one_factor", "two_factor": "two_factor", "totp": "two_factor"}

_NO_CLIENTS: Final = (
    "authz.yaml names no clients, so every client of Authelia that gets a token for a server may",
    "use it. Authelia knows no registration: this is a client to begin with.",
)
_NO_REDIRECT: Final = (
    "authz.yaml says nothing of its redirect_uris: put in what the client documents.",
)
_LOCALHOST: Final = (
    "Authelia takes any port for 127.0.0.1 and [::1], but for localhost the very port that is",
    "registered: with another one the log-in ends in an error. Prefer 127.0.0.1.",
)
_NO_SERVER: Final = ("Its scopes are those of no server, so its tokens are for nobody.",)
_SECRET: Final = (
    "Make a secret and put its digest here; the secret itself goes to the client alone:",
    "authelia crypto hash generate pbkdf2 --variant sha512 --iterations 100000 \\",
    "  --random --random.length 64 --random.charset rfc3986",
)
_ENDPOINTS: Final = ("token", "revocation", "introspection", "pushed_authorization_request")


@dataclass(frozen=True, slots=True)
class AutheliaClient:
    """Hold one client in Authelia's keys, and what is to be said about its members.

    Attributes:
        values: the entry of `identity_providers.oidc.clients`.
        notes: comment lines by member; under the empty name those above the whole.
    """

    values: Mapping[str, object]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


def direct_clients(config: Config, key: PublicKey | None) -> Iterator[AutheliaClient]:
    """Yield the clients that talk to Authelia themselves; the one that introspects comes last.

    Clients of the front door are none of them.

    Args:
        config: authz.yaml.
        key: the public half of `issuer.introspection.key_file`; None where it was not read.
    """
    if not config.named and config.login == "direct":
        first = ClientConfig.model_validate({"redirect_uris": LOOPBACK})
        client = _person_client(config, _FIRST, first)
        yield AutheliaClient(client.values, {**client.notes, "": _NO_CLIENTS})
    for name, known in config.named.items():
        if known.machine:
            yield _machine_client(config, name, known)
        elif name in config.direct:
            yield _person_client(config, name, known)
    if config.issuer.introspection is not None:
        yield _introspection_client(config.issuer.introspection, key)


def usable_servers(config: Config, name: str, client: ClientConfig) -> list[str]:
    """Return the servers that a client may use: those whose own scopes it may have."""
    return [
        each
        for each, server in config.servers.items()
        if (not client.machine or name in server.machines)
        and (client.scopes is None or set(server.scopes) <= set(client.scopes))
    ]


def asks_groups(config: Config, servers: Iterable[str]) -> bool:
    """Tell whether one of the servers, or one of their tools, asks for groups."""
    targets = (target for name in servers for target in config.targets_of(name))
    return any(reads_groups(config, target.rule) for target in targets)


def reads_groups(config: Config, rule: RuleConfig) -> bool:
    """Tell whether a rule, or a limit of it or of every request, looks at groups."""
    limits = (*config.limits, *(rule.limits or ()))
    return rule.groups is not None or any(limit.reads_groups for limit in limits)


def _scopes(config: Config, client: ClientConfig, servers: Iterable[str]) -> list[str]:
    return config.scopes_of(*servers) if client.scopes is None else list(client.scopes)


def _person_client(config: Config, name: str, client: ClientConfig) -> AutheliaClient:
    servers = usable_servers(config, name, client)
    groups = asks_groups(config, servers)
    extra = [GROUPS, OFFLINE] if groups else [OFFLINE]
    redirects = client.redirect_uris or LOOPBACK
    notes: dict[str, tuple[str, ...]] = {}
    if not client.redirect_uris:
        notes["redirect_uris"] = _NO_REDIRECT
    elif any(uri.startswith("http://localhost") for uri in client.redirect_uris):
        notes["redirect_uris"] = _LOCALHOST
    if not servers:
        notes["audience"] = _NO_SERVER
    values = {
        "client_id": name,
        "client_name": name,
        "public": True,
        "redirect_uris": list(redirects),
        "scopes": list(dict.fromkeys([*_scopes(config, client, servers), *extra])),
        "audience": [config.resource(each) for each in servers],
        "authorization_policy": _POLICIES[client.assurance],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "require_pkce": True,
        "pkce_challenge_method": "S256",
        "token_endpoint_auth_method": "none",
        **signing_algorithms(config, servers),
        **_claims_policy(config, client, groups=groups),
    }
    return AutheliaClient(values, notes)


def assured_policy(word: str) -> str:
    """Return the claims policy whose tokens say what their client's assurance says."""
    return f"{POLICY}-{word}"


def _claims_policy(config: Config, client: ClientConfig, *, groups: bool) -> dict[str, object]:
    if config.issuer.assurance_claim is not None and client.assurance is not None:
        return {"claims_policy": assured_policy(client.assurance)}
    return {"claims_policy": POLICY} if groups else {}


def _machine_client(config: Config, name: str, client: ClientConfig) -> AutheliaClient:
    servers = usable_servers(config, name, client)
    values = {
        "client_id": name,
        "client_name": name,
        "client_secret": PLACEHOLDER,
        "scopes": _scopes(config, client, servers),
        "audience": [config.resource(each) for each in servers],
        "grant_types": ["client_credentials"],
        "response_types": [],
        "token_endpoint_auth_method": "client_secret_basic",
        **signing_algorithms(config, servers),
    }
    return AutheliaClient(values, {"client_secret": _SECRET})


def signing_algorithms(
    config: Config, servers: Iterable[str], *, id_token: bool = False
) -> dict[str, object]:
    """Return the algorithms of a client's tokens; no access token is signed where none may be."""
    algorithms = config.issuer.algorithms
    best = "RS256" if "RS256" in algorithms else algorithms[0]
    opaque = [config.servers[name].tokens == ("opaque",) for name in servers]
    access: dict[str, object]
    access = {} if opaque and all(opaque) else {"access_token_signed_response_alg": best}
    return access | ({"id_token_signed_response_alg": best} if id_token else {})


def signing_client(
    key: PublicKey | None, key_id: str | None, field: str
) -> tuple[dict[str, object], dict[str, tuple[str, ...]]]:
    """Return the members of a client that signs assertions (`private_key_jwt`), and their notes.

    Args:
        key: its public key; None where that was not read.
        key_id: how Authelia tells it from others.
        field: of authz.yaml, where the private one is.
    """
    algorithm = "ES256" if key is None else key.algorithm
    values: dict[str, object] = {
        "jwks": [
            {
                "key_id": key_id or "authz",
                "algorithm": algorithm,
                "use": "sig",
                "key": PLACEHOLDER if key is None else key.pem,
            }
        ]
    }
    # All of them: for a client without a secret Authelia demands that each is said.
    for each in _ENDPOINTS:
        values[f"{each}_endpoint_auth_method"] = "private_key_jwt"
        values[f"{each}_endpoint_auth_signing_alg"] = algorithm
    if key is not None:
        return values, {}
    unread = f"The public half of {field}, which could not be read here:"
    return values, {"jwks": (unread, "openssl pkey -in KEY_FILE -pubout")}


def _introspection_client(asked: IntrospectionConfig, key: PublicKey | None) -> AutheliaClient:
    """Return the client that asks about tokens; it can do nothing else."""
    values: dict[str, object] = {"client_id": asked.client_id, "client_name": asked.client_id}
    notes: dict[str, tuple[str, ...]]
    notes = {"": ("authz asks about tokens as this client: issuer.introspection.",)}
    if asked.auth == "private_key_jwt":
        credentials, more = signing_client(key, asked.key_id, "issuer.introspection.key_file")
        values |= credentials
        notes |= more
    else:
        values["client_secret"] = PLACEHOLDER
        notes["client_secret"] = _SECRET
        for each in _ENDPOINTS:
            values[f"{each}_endpoint_auth_method"] = asked.auth
    values |= {"scopes": [], "grant_types": ["client_credentials"], "response_types": []}
    return AutheliaClient(values, notes)
