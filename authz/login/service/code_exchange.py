"""Our codes, traded in (RFC 6749, section 4.1.3; RFC 7636, section 4.6).

Law: a code is taken before anything is asked of it, so that a wrong guess costs it, and with it
Authelia's tokens; one that comes a second time ends what the first one gave. Nothing is given that
is not recorded before.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NoReturn

from authz.core.ledger import UnavailableError
from authz.login.clients.identity import identity_again, names_of
from authz.login.protocol.digests import digest
from authz.login.protocol.grant import Grant
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.values import ClientIdentity, LoginIdentity, OAuthError, UpstreamError
from authz.login.service.client_authentication import check_authenticated
from authz.login.service.grant_end import BLOCKED, LOST, REPLAYED, end
from authz.login.service.means import Means
from authz.login.service.refresh_tokens import RefreshToken, seal_refresh, sealed_upstream
from authz.login.service.token_response import log_in_of, token_answer
from authz.login.store.codes import AuthorizationCode, UsedCode

_CODE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636, section 4.1
_WORDS: Final = "the code is not good, or not any more"


class CodeExchange:
    """Trade codes in."""

    def __init__(self, means: Means) -> None:
        """Take the parts."""
        self._means = means

    async def exchange(
        self, parameters: Parameters, *, authenticated: bool = False
    ) -> Mapping[str, Any]:
        """Return the answer to a token request with a code.

        Args:
            parameters: of the request.
            authenticated: whether the client has authenticated.

        Raises:
            OAuthError: for the client.
            UnavailableError: where Redis does not answer.
        """
        code, client_id = parameters.needed("code"), parameters.needed("client_id")
        if _CODE.fullmatch(code) is None:
            raise self._refused()
        taken = await self._means.codes.take(code)
        match taken:
            case AuthorizationCode(payload):
                return await self._first(code, payload, client_id, parameters, authenticated)
            case UsedCode(mark):
                await self._again(mark)
        raise self._refused()

    async def _first(
        self,
        code: str,
        held: Mapping[str, Any],
        client_id: str,
        parameters: Parameters,
        authenticated: bool,
    ) -> Mapping[str, Any]:
        try:
            self._check_told(held, client_id, parameters)
            identity = await self._identity(client_id, held, authenticated)
        except (OAuthError, UnavailableError):
            await self._forget(held)
            raise
        means, now = self._means, self._means.clock()
        token = RefreshToken(
            issuer=means.grants.issuer,
            upstream=held["refresh_token"] or "",
            grant=held["grant"],
            client=held["client"],
            name=identity.name,
            redirect_uri=identity.redirect_uri,
            subject=held["subject"],
            server=held["server"],
            resource=held["resource"],
            scopes=tuple(held["scopes"]),
            two_factor=held["two_factor"],
            consented_at=held["at"],
            address=held["address"],
        )
        lifetime = held["at"] + means.grant_max_age - now
        refresh = seal_refresh(means.sealer, token, lifetime) if token.upstream else None
        who = LoginIdentity(
            held["subject"], frozenset(held["amr"]), held["auth_time"], held["account"]
        )
        # Without a refresh token it is the access token that Authelia ends with the grant.
        ending = token if refresh else replace(token, upstream=held["access_token"])
        upstream = sealed_upstream(
            means.sealer, ending, lifetime if refresh else held["expires_at"] - now
        )
        grant = _grant(
            held, token, client_id, identity, now, refresh=refresh or "", upstream=upstream
        )
        try:
            begun = await means.grants.begin(
                who.subject,
                grant,
                log_in_of(token, client_id, identity, who),
                max(int(grant.expires_at - now), 1),
                means.codes.key(code),
            )
            # A block ends the grants that there are; this one may have begun behind its back.
            blocked = begun and await means.blocks.blocked(client_id, names_of(identity))
        except UnavailableError:
            # It may have begun all the same, and nobody would know of it.
            with suppress(UnavailableError):
                await means.grants.end(who.subject, grant.id, LOST)
            await self._forget(held)
            raise
        if not begun:
            await self._forget(held)
            raise self._refused(identity.name)
        if blocked:
            await means.grants.end(who.subject, grant.id, BLOCKED)
            await self._forget(held)
            raise self._blocked(identity)
        means.tell("token", "ok", client=identity.name, server=grant.server, grant=grant.id)
        return token_answer(
            access_token=held["access_token"],
            refresh_token=refresh,
            scopes=token.scopes,
            expires_at=grant.expires_at,
            now=now,
            restricted=held.get("restricted", False),
        )

    def _check_told(self, held: Mapping[str, Any], client_id: str, parameters: Parameters) -> None:
        """Check as `_check`; the log hears which log-in was refused.

        Raises:
            OAuthError: as `_check`.
        """
        try:
            _check(held, client_id, parameters)
        except OAuthError as refused:
            detail = "another client, verifier or redirect URI than at the log-in"
            self._means.tell(
                "token",
                refused.error,
                client=held["name"],
                server=held["server"],
                grant=held["grant"],
                detail=refused.words if refused.error == "invalid_target" else detail,
            )
            raise

    async def _identity(
        self, client_id: str, held: Mapping[str, Any], authenticated: bool
    ) -> ClientIdentity:
        client = await self._means.clients.find(client_id)
        check_authenticated(client, authenticated=authenticated)
        identity = identity_again(client, held["redirect_uri"])
        if identity is None or identity.name != held["name"]:
            raise self._refused(held["name"])
        if await self._means.blocks.blocked(client_id, names_of(identity)):
            raise self._blocked(identity)
        return identity

    def _blocked(self, client: ClientIdentity) -> OAuthError:
        self._means.tell("token", "blocked", client=client.name)
        return OAuthError("unauthorized_client", "the client was blocked")

    async def _again(self, mark: Mapping[str, Any]) -> NoReturn:
        """End what a code gave that comes a second time (RFC 6749, section 4.1.2)."""
        await end(
            self._means,
            mark["subject"],
            mark["grant"],
            REPLAYED,
            two_factor=mark["two_factor"],
            token=mark["token"],
            address=mark["address"],
        )
        self._means.tell("token", "replayed", client=mark["name"], grant=mark["grant"])
        raise OAuthError("invalid_grant", _WORDS)

    async def _forget(self, held: Mapping[str, Any]) -> None:
        """End Authelia's tokens, which nobody was given."""
        with suppress(UpstreamError, UnavailableError):
            await self._means.upstream.revoke(
                two_factor=held["two_factor"], token=held["token"], address=held["address"]
            )

    def _refused(self, client: str = "") -> OAuthError:
        self._means.tell("token", "invalid_grant", client=client)
        return OAuthError("invalid_grant", _WORDS)


def _check(held: Mapping[str, Any], client_id: str, parameters: Parameters) -> None:
    """Refuse whoever is not the client that the code was made for, in this very transaction.

    Raises:
        OAuthError: whatever it is that is wrong, it is told in the same words.
    """
    verifier = parameters.get("code_verifier") or ""
    hashed = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
    challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=")
    # OAuth 2.1, section 4.1.3, has no redirect_uri here, since PKCE binds the code: where it is
    # sent it has to be the same (RFC 6749, section 4.1.3).
    redirect_uri = parameters.get("redirect_uri")
    good = (
        hmac.compare_digest(digest(client_id), held["client"])
        and _VERIFIER.fullmatch(verifier) is not None
        and hmac.compare_digest(challenge, held["challenge"].encode())
        and redirect_uri in (None, held["redirect_uri"])
    )
    if not good:
        raise OAuthError("invalid_grant", _WORDS)
    check_resources(parameters, held["resource"])


def check_resources(parameters: Parameters, resource: str) -> None:
    """Refuse another resource than the consented one (RFC 8707, section 2.2).

    Raises:
        OAuthError: `invalid_target`.
    """
    if not set(parameters.resources) <= {resource, f"{resource}/"}:
        raise OAuthError("invalid_target", "resource is not what the person consented to")


def _grant(
    held: Mapping[str, Any],
    token: RefreshToken,
    client_id: str,
    identity: ClientIdentity,
    now: float,
    *,
    refresh: str,
    upstream: str,
) -> Grant:
    return Grant(
        id=token.grant,
        account=held["account"],
        client=identity.name,
        client_id=client_id,
        title=identity.title,
        redirect_uri=identity.redirect_uri,
        ends_at=identity.ends_at,
        document_host=identity.document_host,
        server=token.server,
        resource=token.resource,
        scopes=token.scopes,
        two_factor=token.two_factor,
        created_at=token.consented_at,
        used_at=int(now),
        amr=tuple(held["amr"]),
        auth_time=held["auth_time"],
        expires_at=held["expires_at"],
        access=digest(held["access_token"]),
        refresh=digest(refresh) if refresh else "",
        upstream=upstream,
    )
