"""The OAuth errors of the stand-in, in the words of the recorded Authelia."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """State one error.

    Attributes:
        name: the `error` member (RFC 6749, section 5.2, and Authelia's own).
        status: the HTTP status where it is answered directly.
        description: the first sentence of `error_description`.
        hint: the second sentence where the place that refuses adds none of its own.
    """

    name: str
    status: int
    description: str
    hint: str = ""


class ErrorCode(Enum):
    """Name the errors."""

    INVALID_REQUEST = ErrorRow(
        "invalid_request",
        400,
        "The request is missing a required parameter, includes an invalid parameter value, "
        "includes a parameter more than once, or is otherwise malformed.",
        "Make sure that the various parameters are correct, be aware of case sensitivity and trim "
        "your parameters. Make sure that the client you are using has exactly whitelisted the "
        "redirect_uri you specified.",
    )
    UNAUTHORIZED_CLIENT = ErrorRow(
        "unauthorized_client",
        400,
        "The client is not authorized to request a token using this method.",
        "Make sure that client id and secret are correctly specified and that the client exists.",
    )
    ACCESS_DENIED = ErrorRow(
        "access_denied",
        403,
        "The resource owner or authorization server denied the request.",
        "Make sure that the request you are making is valid. Maybe the credential or request "
        "parameters you are using are limited in scope or otherwise restricted.",
    )
    UNSUPPORTED_RESPONSE_TYPE = ErrorRow(
        "unsupported_response_type",
        400,
        "The authorization server does not support obtaining a token using this method.",
    )
    UNSUPPORTED_RESPONSE_MODE = ErrorRow(
        "unsupported_response_mode",
        400,
        "The authorization server does not support obtaining a response using this response mode.",
    )
    INVALID_SCOPE = ErrorRow(
        "invalid_scope", 400, "The requested scope is invalid, unknown, or malformed."
    )
    INSUFFICIENT_SCOPE = ErrorRow(
        "insufficient_scope",
        403,
        "The request requires higher privileges than provided by the Access Token.",
    )
    INVALID_GRANT = ErrorRow(
        "invalid_grant",
        400,
        "The provided authorization grant (e.g., authorization code, resource owner credentials) "
        "or refresh token is invalid, expired, revoked, does not match the redirection URI used "
        "in the authorization request, or was issued to another client.",
    )
    INVALID_CLIENT = ErrorRow(
        "invalid_client",
        401,
        "Client authentication failed (e.g., unknown client, no client authentication included, "
        "or unsupported authentication method).",
    )
    INVALID_STATE = ErrorRow(
        "invalid_state",
        400,
        "The state is missing or does not have enough characters and is therefore considered too "
        "weak.",
    )
    INVALID_TARGET = ErrorRow(
        "invalid_target",
        400,
        "The requested resource is invalid, missing, unknown, or malformed.",
        "Ensure the requested resource is an absolute URI without a fragment component that "
        "identifies a resource server known to the authorization server and that it is permitted "
        "for this client.",
    )
    INVALID_REQUEST_URI = ErrorRow(
        "invalid_request_uri",
        400,
        "The request_uri in the authorization request returns an error or contains invalid data.",
        "The 'request_uri' provided is invalid, expired, or otherwise incorrect.",
    )
    LOGIN_REQUIRED = ErrorRow(
        "login_required", 400, "The Authorization Server requires End-User authentication."
    )
    REQUEST_UNAUTHORIZED = ErrorRow(
        "request_unauthorized",
        401,
        "The request could not be authorized.",
        "Check that you provided valid credentials in the right format.",
    )
    JTI_KNOWN = ErrorRow("jti_known", 400, "The jti was already used.")
    INVALID_TOKEN = ErrorRow(
        "invalid_token",
        400,
        "Only OpenID Connect 1.0 Access Tokens are allowed in the authorization header.",
        "Check that you provided a valid token in the right format.",
    )
    SERVER_ERROR = ErrorRow(
        "server_error",
        500,
        "The authorization server encountered an unexpected condition that prevented it from "
        "fulfilling the request.",
    )

    @property
    def row(self) -> ErrorRow:
        """Return the row of this error."""
        row: ErrorRow = self.value
        return row


class StandInOAuthError(Exception):
    """Carry an error out of whatever refuses.

    Attributes:
        row: the row of the table.
        hint: the sentence after the description.
    """

    def __init__(self, error: ErrorCode, hint: str | None = None) -> None:
        """Keep the row and its hint: the row's own where none is given, none where it is empty."""
        super().__init__(error.row.name)
        self.row = error.row
        self.hint = error.row.hint if hint is None else hint

    @property
    def description(self) -> str:
        """Return the `error_description` member."""
        return f"{self.row.description} {self.hint}".strip()

    def members(self) -> dict[str, str]:
        """Return the members of the JSON answer and of the error redirect."""
        return {"error": self.row.name, "error_description": self.description}
