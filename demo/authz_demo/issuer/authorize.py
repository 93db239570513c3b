"""The authorization request: read, checked, and answered with a redirect.

Invariant: nothing is sent to a redirect URI that is not registered, exactly; every later error goes
there, with `iss` (RFC 9207).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from urllib.parse import parse_qs, urlencode, urlsplit

from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.resources import Form, audience, require_scopes, split_spaces
from authz_demo.issuer.state import (
    Code,
    IssuerGrant,
    LoginFlow,
    Parameters,
    PortalSession,
    PushedRequest,
    StandInIssuer,
    opaque,
)
from authz_demo.issuer.values import RegisteredClient, Release

_SHORTEST_STATE = 8
_LOOPBACK = ("127.0.0.1", "[::1]")  # not `localhost`: Authelia lets its port vary for nobody
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """Hold an authorization request whose client and redirect URI are right.

    Attributes:
        form: every value of every parameter, those of a pushed request included.
        sent: the parameters as the browser sent them, sorted by name, to be sent again after a
            log-in.
        consent_id: the flow that the browser comes back from; empty where it comes first.
        pushed: the pushed request that it was; None where it was none.
    """

    client: RegisteredClient
    redirect_uri: str
    form: Form
    sent: Parameters
    consent_id: str = ""
    pushed: PushedRequest | None = None

    def first(self, name: str) -> str:
        """Return the first value of a parameter; empty where it was not sent."""
        return self.form.get(name, [""])[0]

    @property
    def scopes(self) -> tuple[str, ...]:
        """Return the scopes asked for, in their order."""
        return split_spaces(self.first("scope"))

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the `prompt` values."""
        return split_spaces(self.first("prompt"))


def find_client(issuer: StandInIssuer, sent: Sequence[tuple[str, str]]) -> CheckedRequest:
    """Find the client and its redirect URI: what is wrong here can only be told on a page.

    Raises:
        StandInOAuthError: `invalid_client`, `invalid_request`, `invalid_request_uri`.
    """
    kept = [(name, value) for name, value in sent if name != "consent_id"]
    kept.sort(key=itemgetter(0))  # by name alone: several values of one keep their order
    outer = dict(reversed(kept))  # of a parameter that came twice, the first one counts
    pushed = None
    if request_uri := outer.get("request_uri", ""):
        # RFC 9126, section 2.2: good for one use. Waiting for a person gives it back.
        pushed = issuer.memory.pushed.pop(request_uri, None)
        if pushed is None or issuer.now() >= pushed.expires_at or "client_id" not in outer:
            raise StandInOAuthError(ErrorCode.INVALID_REQUEST_URI)
    form: dict[str, list[str]] = {}
    for name, value in kept if pushed is None else pushed.parameters:
        form.setdefault(name, []).append(value)
    client = issuer.config.client(form.get("client_id", [""])[0])
    if client is None:
        raise StandInOAuthError(
            ErrorCode.INVALID_CLIENT, "The requested OAuth 2.0 Client does not exist."
        )
    if client.require_pushed and pushed is None:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            "Pushed Authorization Requests are required but this Authorization Request was not "
            "made as a Pushed Authorization Request.",
        )
    consent_id = dict(sent).get("consent_id", "")
    return CheckedRequest(client, redirect_uri(client, form), form, tuple(kept), consent_id, pushed)


def redirect_uri(client: RegisteredClient, form: Form) -> str:
    """Return the redirect URI of a request, if it is registered.

    Raises:
        StandInOAuthError: `invalid_request`.
    """
    wanted = form.get("redirect_uri", [""])[0]
    if not wanted and "openid" in split_spaces(form.get("scope", [""])[0]):
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            "The 'redirect_uri' parameter is required when using OpenID Connect 1.0.",
        )
    if not wanted and len(client.redirect_uris) == 1:
        return client.redirect_uris[0]
    if wanted and any(_same_uri(registered, wanted) for registered in client.redirect_uris):
        return wanted
    raise StandInOAuthError(
        ErrorCode.INVALID_REQUEST,
        "The 'redirect_uri' parameter does not match any of the OAuth 2.0 Client's "
        "pre-registered 'redirect_uris'.",
    )


def _same_uri(registered: str, wanted: str) -> bool:
    if wanted == registered:
        return True
    have, want = urlsplit(registered), urlsplit(wanted)
    # RFC 8252, section 7.3: a native application listens on whatever port is free.
    if (have.scheme, want.scheme) != ("http", "http") or want.fragment:
        return False
    host = _without_port(want.netloc)
    return host in _LOOPBACK and (host, want.path, want.query) == (
        _without_port(have.netloc),
        have.path,
        have.query,
    )


def _without_port(netloc: str) -> str:
    host, colon, port = netloc.rpartition(":")
    return host if colon and port.isdigit() else netloc


def check(asked: CheckedRequest, release: Release) -> None:
    """Refuse what is wrong before anybody is asked to log in.

    Raises:
        StandInOAuthError: told at the redirect URI.
    """
    if ("client_id", asked.client.client_id) not in asked.sent:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            "The 'client_id' must match the one sent in the pushed authorization request.",
        )
    mode = asked.first("response_mode")
    if mode not in ("", "query"):
        raise StandInOAuthError(
            ErrorCode.UNSUPPORTED_RESPONSE_MODE,
            f"The 'response_mode' requested was '{mode}', but the Authorization Server or "
            "registered OAuth 2.0 client doesn't allow or support this mode.",
        )
    kind = asked.first("response_type")
    if kind != "code":
        raise StandInOAuthError(
            ErrorCode.UNSUPPORTED_RESPONSE_TYPE,
            f"The client is not allowed to request response_type '{kind}'."
            if kind
            else "The request is missing the 'response_type' parameter.",
        )
    require_scopes(asked.client, asked.scopes)
    audience(asked.client, asked.form, release)
    if len(asked.first("state")) < _SHORTEST_STATE:
        raise StandInOAuthError(
            ErrorCode.INVALID_STATE,
            "Request parameter 'state' must be at least be 8 characters long to ensure "
            "sufficient entropy.",
        )


def _check_late(asked: CheckedRequest) -> None:
    """Refuse what Authelia looks at only once the person has logged in."""
    if unknown := [prompt for prompt in asked.prompts if prompt not in _PROMPTS]:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            f"The requested prompt value '{unknown[0]}' either contains unknown, unsupported, or "
            "prohibited prompt values.",
        )
    challenge, method = asked.first("code_challenge"), asked.first("code_challenge_method")
    if not challenge:
        if asked.client.public or asked.client.require_pkce:
            raise StandInOAuthError(
                ErrorCode.INVALID_REQUEST,
                "Clients must include a 'code_challenge' when performing the authorize code flow, "
                "but it is missing.",
            )
    elif method in ("", "plain"):
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            "Authorization was requested with 'code_challenge_method' value 'plain', but the "
            "authorization server policy does not allow method 'plain' and requires method "
            "'S256'.",
        )
    elif method != "S256":
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            f"Authorization was requested with 'code_challenge_method' value '{method}', but the "
            "authorization server doesn't know how to handle this method, try 'S256' instead.",
        )


def sufficient(client: RegisteredClient, session: PortalSession) -> bool:
    """Tell whether a session has all the factors that a client's policy wants."""
    return client.authorization_policy == "one_factor" or session.totp_at is not None


def login_required(form: Form, requested_at: float, session: PortalSession) -> bool:
    """Tell whether `prompt=login` or `max_age` want the password typed again.

    An unreadable `max_age` counts as 0, and 0 can never be met: every log-in is too old for it.
    """
    prompts = split_spaces(form.get("prompt", [""])[0])
    if "login" in prompts and session.auth_time < requested_at:
        return True
    if "max_age" not in form:
        return False
    try:
        age = int(form["max_age"][0])
    except ValueError:
        age = 0
    return age == 0 or session.auth_time + age < requested_at


def consent_required(asked: CheckedRequest) -> bool:
    """Tell whether the person is asked even though the client's consent mode is implicit."""
    return "offline_access" in asked.scopes or not {"consent", "login"}.isdisjoint(asked.prompts)


def issue_code(
    issuer: StandInIssuer, asked: CheckedRequest, session: PortalSession, flow: LoginFlow
) -> str:
    """Grant the request; return the redirect that carries the code.

    Raises:
        StandInOAuthError: told at the redirect URI.
    """
    _check_late(asked)
    grant = IssuerGrant(
        client_id=asked.client.client_id,
        user=session.user,
        scopes=asked.scopes,
        audience=audience(asked.client, asked.form, issuer.config.release),
        requested_at=flow.requested_at,
        nonce=asked.first("nonce"),
        acr_asked="acr_values" in asked.form,
        amr=session.amr,
        auth_time=int(session.auth_time),
    )
    code = opaque("ac")
    issuer.memory.codes[code] = Code(
        grant,
        asked.redirect_uri,
        asked.first("code_challenge"),
        issuer.now() + issuer.config.lifetimes.authorize_code,
    )
    return back(issuer, asked, {"code": code, "scope": " ".join(asked.scopes)})


def back(issuer: StandInIssuer, asked: CheckedRequest, members: dict[str, str]) -> str:
    """Return the redirect URI with the members of an answer, `iss` and `state` added."""
    members = members | {"iss": issuer.config.base}
    if asked.first("state"):
        members["state"] = asked.first("state")
    url = urlsplit(asked.redirect_uri)
    query = {name: values[0] for name, values in parse_qs(url.query).items()} | members
    return url._replace(query=urlencode(sorted(query.items()))).geturl()
