"""Client id metadata documents: clients whose id is the URL of what they say of themselves.

draft-ietf-oauth-client-id-metadata-document-02 is the measure, and narrower where it leaves room:
no query, no port, no address for a host.

A client that authenticates does so with `private_key_jwt` and keys that the document publishes, by
`jwks` or `jwks_uri` (RFC 7591, section 2). Where the document declares that method, nothing else is
taken of the client, whatever the document lists besides.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from authz.core.strict_json import StrictJsonError, loads
from authz.login.clients.client_metadata import (
    ClientMetadataError,
    check_grants,
    read_client_name,
    read_redirect_uris,
    read_refreshes,
)
from authz.login.clients.faults import DocumentFault
from authz.login.clients.lookup import (
    DocumentError,
    Fetch,
    FetchedCache,
    OnFetched,
    nobody,
    unheard,
)
from authz.login.clients.redirects import RedirectRules
from authz.login.protocol.values import ClientKind, KeyAuthentication, OAuthClient
from authz.tokens.bulkhead import Bulkhead
from authz.tokens.jwk import ALGORITHMS, KeySet, KeySetError, read_key_set

PREFIX: Final = "https://"
LONGEST_URL: Final = 512  # characters

_SEGMENT: Final = r"[A-Za-z0-9._~!$&'()*+,;=:@-]+"  # no `%`: a URL has one spelling
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A name of the open Internet: at least two labels, and the last is no number, so no address.
_URL: Final = re.compile(
    rf"https://(?P<host>(?:{_LABEL}\.)+(?=[a-z]){_LABEL})(?P<path>(?:/{_SEGMENT})+/?)\Z"
)
_LONGEST_HOST: Final = 253
_MAX_DEPTH: Final = 16
_MOST_URI_CHARACTERS: Final = 4096  # of one client, so that those remembered stay small
_MOST_KEYS: Final = 8  # in a document itself; they are read anew for each assertion
_LONGEST_KEYS: Final = 8192  # characters, of the same
# Nobody can share a secret with us by publishing it (the draft's section 4.1).
_SECRETS: Final = frozenset({"client_secret", "client_secret_expires_at"})
_KEY: Final = "private_key_jwt"
_NONE: Final = "none"


def unusable(description: str) -> DocumentError:
    """Return what says that a document is there, and cannot be used."""
    return DocumentError(DocumentFault.UNUSABLE, description)


def document_host(client_id: str) -> str | None:
    """Return the host of a URL that can be a client's id, None where it can be none."""
    found = _URL.match(client_id) if len(client_id) <= LONGEST_URL else None
    if found is None or len(found["host"]) > _LONGEST_HOST:
        return None
    return None if {".", ".."}.intersection(found["path"].split("/")) else found["host"]


def read_document(client_id: str, host: str, body: bytes, rules: RedirectRules) -> OAuthClient:
    """Return the client that a document describes.

    A redirect URI of another host than the document's is as good as any: a log-in that ends there
    is shown as unverified (`clients.identity`).

    Raises:
        DocumentError: where it describes none that can log in here.
    """
    try:
        said = loads(body, max_depth=_MAX_DEPTH)
    except StrictJsonError as error:
        raise unusable("it is not strict JSON") from error
    if not isinstance(said, dict):
        raise unusable("it is no JSON object")
    if said.get("client_id") != client_id:
        raise unusable("its client_id is not its own URL")
    authentication = _authentication(said)
    try:
        check_grants(said)
        uris, client_name = read_redirect_uris(said, rules), read_client_name(said)
    except ClientMetadataError as error:
        raise unusable(error.description) from error
    if sum(map(len, uris)) > _MOST_URI_CHARACTERS:
        raise unusable("it has too many redirect URIs")
    return OAuthClient(
        client_id,
        ClientKind.DOCUMENT,
        client_name or host,
        host,
        uris,
        authentication=authentication,
        refreshes=read_refreshes(said),
    )


def _authentication(said: Mapping[str, object]) -> KeyAuthentication | None:
    """Return how a client authenticates; None for a public one.

    What it declares counts. Of a client that declares something else, or nothing, and lists
    several ways (OpenID Connect RP Metadata Choices) the one without a key is taken, if it is
    listed.
    """
    if not _SECRETS.isdisjoint(said):
        raise unusable("it holds a client_secret, which everybody can read")
    method = said.get("token_endpoint_auth_method")
    listed = said.get("token_endpoint_auth_methods_supported")
    others = listed if isinstance(listed, list) else []
    if method == _KEY:
        return _key_authentication(said)
    if method == _NONE or _NONE in others or (method is None and _KEY not in others):
        return None
    if _KEY in others:
        return _key_authentication(said)
    raise unusable("its token_endpoint_auth_method is neither none nor private_key_jwt")


def _key_authentication(said: Mapping[str, object]) -> KeyAuthentication:
    algorithm = said.get("token_endpoint_auth_signing_alg")
    if algorithm is not None and (not isinstance(algorithm, str) or algorithm not in ALGORITHMS):
        raise unusable("its token_endpoint_auth_signing_alg is not supported here")
    algorithms = frozenset(ALGORITHMS) if algorithm is None else frozenset({algorithm})
    keys, uri = said.get("jwks"), said.get("jwks_uri")
    if (keys is None) == (uri is None):
        raise unusable("it has to publish its keys, by either jwks or jwks_uri")
    if uri is not None:
        if not isinstance(uri, str) or document_host(uri) is None:
            raise unusable("its jwks_uri must be https://host/path, as its own URL")
        return KeyAuthentication("", uri, algorithms)
    text = json.dumps(keys, separators=(",", ":"))
    entries = keys.get("keys") if isinstance(keys, dict) else None
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS or len(text) > _LONGEST_KEYS:
        raise unusable(f"its jwks must be a key set of {_MOST_KEYS} keys and 8 KiB at most")
    read_keys(text.encode(), algorithms)
    return KeyAuthentication(text, "", algorithms)


def read_keys(body: bytes, algorithms: frozenset[str]) -> KeySet:
    """Return the keys that a client publishes.

    Raises:
        DocumentError: where there is none that can be used.
    """
    try:
        return read_key_set(loads(body, max_depth=_MAX_DEPTH), algorithms)
    except StrictJsonError as error:
        raise unusable("its key set is not strict JSON") from error
    except KeySetError as error:
        raise unusable(
            "its key set has no public signature key of an algorithm that is taken"
        ) from error


class Documents(FetchedCache[OAuthClient]):
    """Find the clients of documents."""

    def __init__(
        self,
        fetch: Fetch,
        rules: RedirectRules,
        hosts: tuple[str, ...] | None = None,
        *,
        bulkhead: Bulkhead | None = None,
        capacity: int = 4096,
        patience: float = 8.0,
        requester: Callable[[], str] = nobody,
        on_fetched: OnFetched = unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how to fetch and what to allow; the rest as `FetchedCache`.

        Args:
            fetch: the document at a URL of a host (`Fetcher`); raises FetchError.
            rules: which redirect URIs are allowed.
            hosts: whose documents are taken; None for anybody's.
            bulkhead: how many fetches there may be.
            capacity: how many documents are remembered, and how many that were no use.
            patience: seconds that a caller waits; the fetch goes on.
            requester: the address of who asks at this moment.
            on_fetched: hears of each fetch.
            clock: seconds that never go back.
        """
        read = partial(read_document, rules=rules)
        super().__init__(
            fetch,
            read,
            bulkhead=bulkhead,
            capacity=capacity,
            patience=patience,
            requester=requester,
            on_fetched=on_fetched,
            clock=clock,
        )
        self._hosts = hosts

    def check(self, client_id: str) -> str:
        """Return the host of a URL that can be a client's id here; nothing is fetched.

        Raises:
            DocumentError: where it cannot be one.
        """
        host = document_host(client_id)
        if host is None:
            raise DocumentError(DocumentFault.URL)
        if self._hosts is not None and host not in self._hosts:
            raise DocumentError(DocumentFault.HOST_NOT_TAKEN)
        return host

    async def find(self, client_id: str) -> OAuthClient:
        """Return the client whose document is at this URL.

        Raises:
            DocumentError: where there is none, or none can be had now.
        """
        return await self.at(client_id, self.check(client_id))
