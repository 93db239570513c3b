"""One authorization request (RFC 6749, section 4.1), and what its answer must say.

Every request has a state and a PKCE verifier of its own (RFC 7636, S256) and names one server as
its resource (RFC 8707). An answer needs this state and, where it names one, this issuer (RFC 9207).
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.login.protocol.pkce import s256_challenge

_ENTRY: Final = "the client's entry in Authelia's identity_providers.oidc.clients"


class OAuthLoginError(Exception):
    """Say why nobody was logged in, and what would mend it, in words for a terminal."""

    def __init__(self, words: str, mend: str = "") -> None:
        """Keep both halves."""
        super().__init__(f"{words}; {mend}" if mend else words)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say what to log in for.

    Attributes:
        client_id: a public client of the issuer; empty where it registers first (RFC 7591), as a
            client of the front door does.
        resource: the server's URL.
        scopes: what to ask for.
        path: of the loopback redirect URI.
    """

    client_id: str
    resource: str
    scopes: tuple[str, ...]
    path: str = "/callback"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Hold the secrets of one log-in."""

    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    def form(self, wanted: Wanted, redirect_uri: str) -> dict[str, str]:
        """Return the parameters of the authorization request."""
        form = {
            "response_type": "code",
            "client_id": wanted.client_id,
            "redirect_uri": redirect_uri,
            "state": self.state,
            "code_challenge": s256_challenge(self.verifier),
            "code_challenge_method": "S256",
            "resource": wanted.resource,
        }
        return form | ({"scope": " ".join(wanted.scopes)} if wanted.scopes else {})

    def exchange(self, wanted: Wanted, redirect_uri: str, code: str) -> dict[str, str]:
        """Return the form of the token request."""
        return {
            "grant_type": "authorization_code",
            "client_id": wanted.client_id,
            "redirect_uri": redirect_uri,
            "code": code,
            "code_verifier": self.verifier,
            "resource": wanted.resource,
        }

    def is_answered_by(self, answer: Mapping[str, str]) -> bool:
        """Tell whether an answer belongs to this request."""
        return hmac.compare_digest(answer.get("state", "").encode(), self.state.encode())


def code_of(answer: Mapping[str, str], issuer: str, *, names_issuer: bool) -> str:
    """Return the code of an answer with the right state.

    Args:
        answer: the parameters of the callback.
        issuer: who was asked.
        names_issuer: whether the issuer's metadata promises `iss` in every answer.

    Raises:
        OAuthLoginError: where somebody else answers, or the answer is an error.
    """
    # RFC 9207, section 2.4: before anything else of the answer is believed, errors included.
    if answer.get("iss", None if names_issuer else issuer) != issuer:
        raise OAuthLoginError("the answer is not the issuer's (iss): nothing was sent on")
    if "error" in answer:
        raise refused(answer["error"])
    if not answer.get("code"):
        raise OAuthLoginError("the answer has neither a code nor an error")
    return answer["code"]


def refused(error: str) -> OAuthLoginError:
    """Return an OAuth error in words; one that is unknown is told by its name."""
    if error in _ERRORS:
        return OAuthLoginError(f"the issuer refused: {error}", _ERRORS[error])
    name = error if error.isascii() and error.replace("_", "").isalnum() else "an unknown error"
    return OAuthLoginError(f"the issuer refused: {name[:60]}", "its log says more")


_ERRORS: Final[Mapping[str, str]] = {
    "access_denied": "the person did not agree, or may not use this client at the issuer",
    "invalid_client": (
        "the issuer does not know the client, or it is confidential: log in with a public one "
        f"(public: true in {_ENTRY}; `authz authelia-config` prints it)"
    ),
    "unauthorized_client": f"grant_types: authorization_code in {_ENTRY}",
    "invalid_scope": (
        f"scopes of {_ENTRY} have to name every scope that is asked for; offline_access needs "
        "grant_types: refresh_token too. Or ask for others with --scope"
    ),
    "invalid_target": (
        f"audience of {_ENTRY} has to name the server's URL. Where it does, this is a release of "
        "Authelia after 4.39.20 that forgets `resource`: log in by the front door, or use 4.39.20"
    ),
    "invalid_grant": "the code has expired or was used: try again",
    "temporarily_unavailable": "too many failed log-ins of this address: wait, an hour at most",
}
