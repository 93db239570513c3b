"""The verified claims of an access token.

A person is (issuer, subject) and a client is (issuer, client_id): neither half is unique alone.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Person(NamedTuple):
    """A person: the subject is unique within its issuer only."""

    issuer: str
    subject: str


class Client(NamedTuple):
    """A client: the id is unique within its issuer only."""

    issuer: str
    client_id: str


# How the front door begins the name of a client that nobody configured; it is followed by the host
# of its metadata document, or of its redirect URI.
METADATA = "https://"
DYNAMIC = "dynamic/"


def is_configured(name: str) -> bool:
    """Tell whether a client of the front door has a name that authz.yaml gave it.

    The other two kinds are recognised by prefix alone, so that no entry under `clients` can pass
    for them.
    """
    return not name.startswith((METADATA, DYNAMIC))


@dataclass(frozen=True, slots=True)
class LoginRecord:
    """The log-in behind an access token of the front door.

    Attributes:
        client: the name that rules and limits count by: a configured client's id,
            `https://<host>` of a metadata document on the host where the log-in ended,
            or `dynamic/<where it ended>`.
        client_id: as the client names itself; blocks name it.
        grant: the consent that the token comes of, kept through refresh.
        subject: the `sub` of the verified ID token.
        amr: its `amr` (RFC 8176).
        auth_time: its `auth_time`, seconds since the epoch.
        account: the person's user name, for pages; empty where that is not known.
        redirect_uri: where the log-in ended, from which `client` is derived; empty in records of
            earlier releases.
        ends_at: the same for pages: a host, `loopback`, or a scheme with its colon.
        document_host: the host of the client's metadata document; empty where it has none.
    """

    client: str
    client_id: str
    grant: str
    subject: str
    amr: frozenset[str]
    auth_time: int
    account: str = ""
    redirect_uri: str = ""
    ends_at: str = ""
    document_host: str = ""


@dataclass(frozen=True, slots=True)
class Principal:
    """The verified claims of one access token (RFC 9068, section 2.2).

    Attributes:
        issuer: the `iss` claim, equal to the configured issuer.
        subject: the `sub` claim; None for a token without a person (client_credentials).
        client_id: the signed `client_id` claim; of a token of the front door the name of the
            client that logged in there (`LoginRecord.client`).
        scopes: the granted scopes (`scp` list or `scope` string).
        audience: the `aud` claim, verbatim; compared per request, never here.
        groups: the `groups` claim; empty where the token has none.
        amr: the `amr` claim; None where the token has none (Authelia never sets it).
        auth_time: the `auth_time` claim, seconds since the epoch; None where it has none.
        issued_at: the `iat` claim, seconds since the epoch.
        expires_at: the `exp` claim, seconds since the epoch.
        token_id: names this token in revocations: hex SHA-256 of the signed part of a
            JWT (not of its signature: ECDSA signatures can be altered and stay valid).
        key_id: the `kid` of the key that signed it; empty where a key without kid did.
        opaque: whether it is not signed, so that all claims are of an introspection response
            (RFC 7662); its token_id is then the hex SHA-256 of the whole token.
        confirmed_at: when it was last introspected, seconds since the epoch; None for never.
        login: the front door's record; None for other tokens.
        token_client_id: the signed `client_id` claim of a token of the front door; empty for
            others, whose client_id it is.
        assurance_claim: the signed claim that authz.yaml names as `issuer.assurance_claim`; None
            where the token has none, where it is opaque, or where no such claim is named.
        claims: name and value of each claim that limits count by, where the token has it as text, a
            whole number or a truth value; of each kind another spelling (`tokens/claims.py`).
    """

    issuer: str
    subject: str | None
    client_id: str
    scopes: frozenset[str]
    audience: tuple[str, ...]
    groups: frozenset[str]
    amr: frozenset[str] | None
    auth_time: int | None
    issued_at: int
    expires_at: int
    token_id: str
    key_id: str = ""
    opaque: bool = False
    confirmed_at: float | None = None
    login: LoginRecord | None = None
    token_client_id: str = ""
    assurance_claim: str | None = None
    claims: tuple[tuple[str, str], ...] = ()

    @property
    def grant(self) -> str:
        """Return what step-ups belong to: the front door's grant, else the client itself."""
        return self.client_id if self.login is None else self.login.grant

    @property
    def person(self) -> Person | None:
        """Return the person, or None for a client that acts for itself."""
        return None if self.subject is None else Person(self.issuer, self.subject)

    @property
    def is_unconfigured(self) -> bool:
        """Tell whether it came through the front door by a client that nobody configured."""
        return self.login is not None and not is_configured(self.client_id)

    @property
    def client(self) -> Client:
        """Return the client that the token was issued to."""
        return Client(self.issuer, self.client_id)


def names_resource(audience: tuple[str, ...], resource: str) -> bool:
    """Tell whether an `aud` claim names a resource (RFC 9068, section 4; RFC 8707).

    Audiences are compared as strings. Nothing is resolved, decoded, lower-cased or cut off, because
    Authelia grants whatever begins with an allowed audience, verbatim: `/../`, a query and a longer
    path, too. One trailing slash on the entry is tolerated, since clients add one to a URL without
    a path; a slash is never added to a resource that has one already.
    """
    if resource in audience:
        return True
    return not resource.endswith("/") and f"{resource}/" in audience
