"""Validate which client sends a browser here, and where its log-in may end.

Invariant: until client and redirect URI are known to be good, nobody is sent anywhere; and to whom
an operator did not configure nobody is sent unasked.
"""

from typing import Final
from urllib.parse import urlsplit

from authz.login.clients.identity import identify, names_of
from authz.login.clients.redirects import is_registered
from authz.login.clients.registry import DocumentRefusedError
from authz.login.protocol.authorization import AuthorizationResponse, RedirectedOAuthError, state_of
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.values import ClientIdentity, ClientKind, OAuthClient, OAuthError
from authz.login.service import ports
from authz.login.store.blocklist import Blocklist
from authz.login.web import error_pages
from authz.login.web.error_pages import PageError

_LONGEST_CLIENT_ID: Final = 2048
_LONGEST_URI: Final = 2048
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class ClientValidator:
    """Validate clients."""

    def __init__(
        self, issuer: str, clients: ports.ClientFinder, blocks: Blocklist, log: ports.StepLog
    ) -> None:
        self._issuer = issuer
        self._clients = clients
        self._blocks = blocks
        self._log = log

    async def validate(
        self, client_id: str, redirect_uri: str
    ) -> tuple[OAuthClient, ClientIdentity]:
        """Return a client whose log-in may end at a redirect URI, and what it is there.

        Raises:
            PageError: where there is none, or it is blocked.
            UnavailableError: where Redis does not answer.
        """
        if not 0 < len(client_id) <= _LONGEST_CLIENT_ID:
            raise PageError(error_pages.UNKNOWN_CLIENT)
        try:
            client = await self._clients.find(client_id)
        except DocumentRefusedError as refused:
            detail = f"{refused.found.fault.value}: {refused.found.description}"
            self._log("authorize", "no_document", client=client_id, detail=detail)
            raise PageError(error_pages.no_document(refused.found)) from refused
        except OAuthError as refused:
            self._log("authorize", refused.error, detail=refused.description)
            raise PageError(error_pages.UNKNOWN_CLIENT) from refused
        # RFC 9700, section 2.1: compared exactly, but for the port of a loopback one.
        good = 0 < len(redirect_uri) <= _LONGEST_URI
        if not good or not is_registered(redirect_uri, client.redirect_uris):
            self._log("authorize", "wrong_redirect_uri", client=client.client_id)
            raise PageError(error_pages.WRONG_REDIRECT)
        identity = identify(client, redirect_uri)
        if await self._blocks.blocked(client.client_id, names_of(identity)):
            self._log("authorize", "blocked", client=identity.name)
            raise PageError(error_pages.BLOCKED)
        return client, identity

    def error_redirect(
        self,
        client: OAuthClient,
        redirect_uri: str,
        parameters: Parameters,
        refused: OAuthError,
    ) -> Exception:
        """Return how a client hears of an error before any person has agreed to anything.

        RFC 9700, section 4.11.2: whoever can register could make us an open redirector. Only a
        configured client's site is gone to unasked, or a program on the person's own machine.
        """
        url = urlsplit(redirect_uri)
        away = url.scheme in ("http", "https") and url.hostname not in _LOOPBACK
        if client.kind is not ClientKind.CONFIGURED and away:
            return PageError(error_pages.not_granted(refused.error, refused.description))
        answer = AuthorizationResponse(redirect_uri, state_of(parameters), self._issuer)
        return RedirectedOAuthError(answer, refused.error, refused.description)
