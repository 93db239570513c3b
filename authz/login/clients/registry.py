"""Who a client is: one that is configured, one that a document describes, one that registered.

A client is what its id proves, by the rules of this moment; anything else is `invalid_client`.
What it calls itself is for people, and believed by nobody. What it is for one log-in, its name
included, is made of where that ends (`clients.identity`).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from authz.config import urls
from authz.config.model import ClientConfig, Config, FrontDoorConfig
from authz.login.clients import documents, registration
from authz.login.clients.client_metadata import printable_name
from authz.login.clients.documents import Documents
from authz.login.clients.lookup import PAUSE, DocumentError
from authz.login.clients.redirects import LOOPBACK, RedirectRules, redirect_host
from authz.login.clients.registration import NotRegisteredError, Registrations
from authz.login.protocol.values import ClientKind, OAuthClient, OAuthError

_DEFAULT: Final = "default"  # the entry of `clients` that is no client
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,2048}\Z")
_UNAUTHORIZED: Final = 401
_UNAVAILABLE: Final = 503


class DocumentRefusedError(OAuthError):
    """Say that a client has a metadata document, which is of no use: it is no unknown client.

    Attributes:
        found: what is wrong with the document.
    """

    def __init__(
        self,
        found: DocumentError,
        error: str,
        description: str,
        status: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the fault beside the answer."""
        super().__init__(error, description, status, headers)
        self.found = found


def redirect_rules(config: Config, section: FrontDoorConfig) -> RedirectRules:
    """Return which redirect URIs clients may have that nobody configured."""
    ours = {urls.split(each).host for each in (config.gateway.url, config.issuer.url)}
    return RedirectRules(
        frozenset(section.private_redirect_uris),
        # On one machine, for a trial, the programs are there too.
        frozenset(host for host in ours if redirect_host(f"https://{host}") != LOOPBACK),
    )


class Clients:
    """Find clients by what they call themselves."""

    def __init__(self, config: Config, found: Documents, registrations: Registrations) -> None:
        """Take the configured ones, and where the others are found.

        Args:
            config: a file that was checked.
            found: those that are described by documents.
            registrations: those that registered.
        """
        self._configured = {
            name: client for name, client in config.clients.items() if name != _DEFAULT
        }
        self._login = config.login
        default = config.clients.get(_DEFAULT)
        self._scopes = None if default is None else _scopes(default)
        self._documents = found
        self._registrations = registrations

    def fetches(self, client_id: str) -> bool:
        """Tell whether to find a client is to ask a host that nobody has named lately."""
        document = client_id not in self._configured and client_id.startswith(documents.PREFIX)
        return document and self._documents.fetches(client_id)

    def recognize(self, client_id: str) -> None:
        """Refuse an id that cannot be a client's here, without asking anybody.

        Of a metadata document only the URL and the host are looked at: whether a stranger's host
        answers at this moment says nothing about whether its client is known.

        Raises:
            OAuthError: `invalid_client`.
        """
        self._at_hand(client_id)

    async def find(self, client_id: str) -> OAuthClient:
        """Return the client of an id.

        Raises:
            OAuthError: `invalid_client`, described for the person who set the client up;
                `temporarily_unavailable` where its metadata document cannot be had right now.
        """
        return self._at_hand(client_id) or replace(
            await self._of_document(client_id), scopes=self._scopes
        )

    def _at_hand(self, client_id: str) -> OAuthClient | None:
        """Return the client of an id; None where its metadata document describes it.

        Raises:
            OAuthError: `invalid_client`.
        """
        if _VISIBLE.match(client_id) is None:
            raise _refused("this client is not known here")
        configured = self._configured.get(client_id)
        if configured is not None:
            return self._of_file(client_id, configured)
        if self._login != "front_door":
            raise _refused("clients that are not configured do not log in here")
        if client_id.startswith(documents.PREFIX):
            try:
                self._documents.check(client_id)
            except DocumentError as error:
                raise _no_document(error) from error
            return None
        return replace(self._of_registration(client_id), scopes=self._scopes)

    def _of_file(self, client_id: str, client: ClientConfig) -> OAuthClient:
        if client.machine:
            raise _refused("this client has no person to log in")
        if (client.login or self._login) != "front_door":
            raise _refused("this client logs in at the issuer itself, not here")
        return OAuthClient(
            client_id,
            ClientKind.CONFIGURED,
            printable_name(client_id),
            "",
            tuple(client.redirect_uris),
            _scopes(client),
        )

    async def _of_document(self, client_id: str) -> OAuthClient:
        try:
            return await self._documents.find(client_id)
        except DocumentError as error:
            raise _no_document(error) from error

    def _of_registration(self, client_id: str) -> OAuthClient:
        if not self._registrations.taken:
            raise _refused("this client is not known here; the operator has to name it")
        try:
            registered = self._registrations.read(client_id)
        except NotRegisteredError as error:
            known = client_id.startswith(registration.PREFIX)
            cause = "its registration is no longer valid; " if known else ""
            raise _refused(
                f"this client is not known here: {cause}it has to register anew (in most "
                "programs: remove this server and add it again)"
            ) from error
        return OAuthClient(
            client_id,
            ClientKind.DYNAMIC,
            registered.client_name,
            "",
            registered.redirect_uris,
            refreshes=registered.refreshes,
        )


def _scopes(client: ClientConfig) -> frozenset[str] | None:
    return None if client.scopes is None else frozenset(client.scopes)


def _no_document(error: DocumentError) -> OAuthError:
    description = f"the client's metadata document is of no use: {error.description}"
    if error.fault.passing:
        # Not `invalid_client`: a program would forget a registration that is still good.
        headers = {"Retry-After": str(int(PAUSE))}
        return DocumentRefusedError(
            error, "temporarily_unavailable", description, _UNAVAILABLE, headers
        )
    return DocumentRefusedError(error, "invalid_client", description, _UNAUTHORIZED)


def _refused(description: str) -> OAuthError:
    return OAuthError("invalid_client", description, _UNAUTHORIZED)
