"""Who a client is: one that is configured, one that a document describes, one that registered.

Law: a client is what its id proves, for this moment's rules; anything else is `invalid_client`.
What it calls itself is for people, and believed by nobody.

Names, by which rules and limits count: a configured client's id; `https://<host>` of a document;
`dynamic/<where its log-ins end>` of one that registered. For the last, whoever may end a log-in on
loopback is `dynamic/loopback`, else whoever has a private scheme is `dynamic/<scheme>` (the first
of them by the alphabet), else it is its one https host, and whoever has several is
`dynamic/several`: were it one of the several, a program would have a new name for each host that it
adds to its own. So a new name costs a new host at which log-ins really end.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from authz.config.model import Config
from authz.config.rules import Client
from authz.login.clients import documents, registration
from authz.login.clients.client_metadata import printable_title
from authz.login.clients.documents import Documents, NoDocument
from authz.login.clients.redirects import LOOPBACK, is_private, redirect_host
from authz.login.clients.registration import NotRegistered, Registrations
from authz.login.values import FrontClient, Kind, OAuthRefused

_DEFAULT: Final = "default"  # the entry of `clients` that is no client
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,2048}\Z")
_UNAUTHORIZED: Final = 401
_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Shown:
    """Say how a page names a client, besides its title.

    Attributes:
        place: a host, `loopback`, or the scheme of a program's own.
        verified: whether that place vouches for the client, and the log-in ends there.
    """

    place: str
    verified: bool


def shown_as(client: FrontClient, redirect_uri: str) -> Shown:
    """Return how a page names a client for a log-in that ends at this redirect URI.

    Any program of a machine can listen on its loopback address or claim a scheme there, with
    anybody's document as its id: then nobody vouches for it.
    """
    place = redirect_host(redirect_uri)
    verified = bool(client.verified_host) and place == client.verified_host
    return Shown(place, verified and client.kind is Kind.DOCUMENT)


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
            OAuthRefused: `invalid_client`.
        """
        self._at_hand(client_id)

    async def find(self, client_id: str) -> FrontClient:
        """Return the client of an id.

        Raises:
            OAuthRefused: `invalid_client`, in words for the person who set the client up;
                `temporarily_unavailable` where its metadata document cannot be had right now.
        """
        return self._at_hand(client_id) or replace(
            await self._of_document(client_id), scopes=self._scopes
        )

    def _at_hand(self, client_id: str) -> FrontClient | None:
        """Return the client of an id; None where its metadata document describes it.

        Raises:
            OAuthRefused: `invalid_client`.
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
            except NoDocument as error:
                raise _no_document(error) from error
            return None
        return replace(self._of_registration(client_id), scopes=self._scopes)

    def _of_file(self, client_id: str, client: Client) -> FrontClient:
        if client.machine:
            raise _refused("this client has no person to log in")
        if (client.login or self._login) != "front_door":
            raise _refused("this client logs in at the issuer itself, not here")
        return FrontClient(
            client_id,
            Kind.CONFIGURED,
            client_id,
            printable_title(client_id),
            "",
            tuple(client.redirect_uris),
            _scopes(client),
        )

    async def _of_document(self, client_id: str) -> FrontClient:
        try:
            return await self._documents.find(client_id)
        except NoDocument as error:
            raise _no_document(error) from error

    def _of_registration(self, client_id: str) -> FrontClient:
        if not self._registrations.taken:
            raise _refused("this client is not known here; the operator has to name it")
        try:
            registered = self._registrations.read(client_id)
        except NotRegistered as error:
            known = client_id.startswith(registration.PREFIX)
            words = "its registration is no longer valid; " if known else ""
            raise _refused(
                f"this client is not known here: {words}it has to register anew (in most "
                "programs: remove this server and add it again)"
            ) from error
        name = dynamic_name(registered.redirect_uris)
        return FrontClient(
            client_id,
            Kind.DYNAMIC,
            name,
            registered.title or name.removeprefix("dynamic/"),
            "",
            registered.redirect_uris,
        )


def dynamic_name(redirect_uris: Iterable[str]) -> str:
    """Return the name of a client that registered, as the law above says."""
    uris = tuple(redirect_uris)
    places = {redirect_host(uri) for uri in uris}
    schemes = sorted(redirect_host(uri) for uri in uris if is_private(uri))
    if LOOPBACK in places:
        place = LOOPBACK
    elif schemes:
        place = schemes[0]
    elif len(places) == 1:
        (place,) = places
    else:
        place = "several"
    return f"dynamic/{place}"


def _scopes(client: Client) -> frozenset[str] | None:
    return None if client.scopes is None else frozenset(client.scopes)


def _no_document(error: NoDocument) -> OAuthRefused:
    words = f"the client's metadata document is of no use: {error.words}"
    if error.passing:
        # Not `invalid_client`: a program would forget a registration that is still good.
        headers = {"Retry-After": str(int(documents.PAUSE))}
        return OAuthRefused("temporarily_unavailable", words, _UNAVAILABLE, headers)
    return _refused(words)


def _refused(words: str) -> OAuthRefused:
    return OAuthRefused("invalid_client", words, _UNAUTHORIZED)
