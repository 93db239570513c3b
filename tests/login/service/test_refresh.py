"""Refreshes at an Authelia that was changed by its operator."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from authz.core.ledger import UnavailableError
from authz.login.protocol.refresh import RefreshDeniedError
from authz.login.protocol.values import UpstreamError, UpstreamLogin
from tests.login.service.flow_kit import Flow
from tests.login.service.test_interleavings import exchange, refresh, run
from tests.support.valkey import ValkeyServer


def refusing(found: Flow, error: str) -> Callable[..., Awaitable[UpstreamLogin]]:
    """Let Authelia refuse refreshes; return how it answered before."""
    before = found.authelia.refresh

    async def refuse(**_: Any) -> UpstreamLogin:
        raise UpstreamError(error)

    setattr(found.authelia, "refresh", refuse)  # noqa: B010 - a method of a fake
    return before


def test_another_hmac_secret_lets_clients_log_in_anew(store: ValkeyServer) -> None:
    """They hear `invalid_grant`, and not for ever that Authelia is away; with its old secret back a
    refresh token that was kept is good again.
    """

    async def scene(found: Flow) -> None:
        issued = await exchange(found, await found.code())
        before = refusing(found, "invalid_request")  # as it was recorded: docs/upgrade.md
        for _ in range(2):
            with pytest.raises(RefreshDeniedError) as refused:
                await refresh(found, issued["refresh_token"])
        assert refused.value.error == "invalid_grant"
        assert "hmac_secret" in refused.value.cause
        assert found.authelia.revoked == []
        setattr(found.authelia, "refresh", before)  # noqa: B010 - as above
        assert "access_token" in await refresh(found, issued["refresh_token"])

    run(store, scene)


@pytest.mark.parametrize("error", ["invalid_client", "server_error", "unauthorized_client"])
def test_what_is_wrong_with_us_ends_nothing(store: ValkeyServer, error: str) -> None:
    """A client of ours that Authelia does not take is no fault of the refresh token."""

    async def scene(found: Flow) -> None:
        issued = await exchange(found, await found.code())
        before = refusing(found, error)
        with pytest.raises(UnavailableError):
            await refresh(found, issued["refresh_token"])
        setattr(found.authelia, "refresh", before)  # noqa: B010 - as above
        assert "access_token" in await refresh(found, issued["refresh_token"])

    run(store, scene)
