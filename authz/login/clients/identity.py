"""What a client is for one log-in: its name, and where it comes from.

Both are made of the redirect URI at which this log-in ends. A registration or a document may list
many; were the name made of the list, a client would be blocked under one list and come back under
another.

Names, by which rules, limits and blocks count:
- a configured client's id;
- `https://<host>` of a client with a metadata document, where the log-in ends at the origin of the
  document, or where the client has to authenticate with a key that the document publishes and the
  log-in does not end on somebody's own computer;
- `dynamic/<where the log-in ends>` for anybody else: a host, `loopback`, or a scheme.
"""

from collections.abc import Iterator
from typing import Final

from authz.core.principal import DYNAMIC, METADATA, is_configured
from authz.login.clients.redirects import LOOPBACK, is_private, place_of
from authz.login.protocol.values import ClientIdentity, ClientKind, OAuthClient


def identify(client: OAuthClient, redirect_uri: str) -> ClientIdentity:
    """Return what a client is for a log-in that ends at one of its redirect URIs."""
    ends_at = place_of(redirect_uri)
    return ClientIdentity(
        name=_name(client, redirect_uri, ends_at),
        client_name=client.client_name,
        redirect_uri=redirect_uri,
        ends_at=ends_at,
        document_host=client.document_host,
    )


def only_identity(client: OAuthClient) -> ClientIdentity | None:
    """Return what a client is whatever redirect URI it uses; None where it depends on that."""
    found = [identify(client, uri) for uri in client.redirect_uris]
    return found[0] if len({each.name for each in found}) == 1 else None


def identity_again(client: OAuthClient, redirect_uri: str) -> ClientIdentity | None:
    """Return what a client is for a log-in that ended earlier.

    Args:
        client: as it is now.
        redirect_uri: where the log-in ended; empty in what was written before that was kept.

    Returns:
        None where the log-in could not end there any more: the operator allows the schemes of
        programs, and may take one back (`front_door.private_redirect_uris`); and where what the
        client is depends on an end that is not known.
    """
    if not redirect_uri:
        return only_identity(client)
    given = client.kind is ClientKind.CONFIGURED or not is_private(redirect_uri)
    return identify(client, redirect_uri) if given or redirect_uri in client.redirect_uris else None


def is_on_device(ends_at: str) -> bool:
    """Tell whether a log-in ends with a program on the person's computer.

    Any program there can listen on a loopback address or claim a scheme, with anybody's document
    as its id, and a key in it is no secret (RFC 8252, sections 8.5 and 8.6).
    """
    return ends_at == LOOPBACK or ends_at.endswith(":")


def blocked_by(name: str, ends_at: str, document_host: str) -> frozenset[str]:
    """Return every name under which a block stops a log-in, besides the client's id.

    Who is blocked as `dynamic/evil.example` must not come back by publishing a document at that
    host, nor who is blocked as `https://evil.example` by registering: a host is one client,
    whichever way it came. What authz.yaml names is itself alone.
    """
    if is_configured(name):
        return frozenset({name})
    return frozenset({name, *_names_of(ends_at), *_names_of(document_host)})


def names_of(identity: ClientIdentity) -> frozenset[str]:
    """Return every name under which a block stops a log-in of this client."""
    return blocked_by(identity.name, identity.ends_at, identity.document_host)


def _name(client: OAuthClient, redirect_uri: str, ends_at: str) -> str:
    if client.kind is ClientKind.CONFIGURED:
        return client.client_id
    host = client.document_host
    if host and _is_of_origin(redirect_uri, host):
        return f"{METADATA}{host}"
    if host and client.authentication is not None and not is_on_device(ends_at):
        return f"{METADATA}{host}"
    return f"{DYNAMIC}{ends_at.removesuffix(_SCHEME)}"


_SCHEME: Final = ":"


def _is_of_origin(uri: str, host: str) -> bool:
    # At another port of the host may be somebody else.
    return uri.startswith((f"https://{host}/", f"https://{host}:443/")) or uri == f"https://{host}"


def _names_of(place: str) -> Iterator[str]:
    if place:
        yield f"{DYNAMIC}{place.removesuffix(_SCHEME)}"
        if not is_on_device(place):
            yield f"{METADATA}{place}"
