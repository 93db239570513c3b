"""The introspection client of one configuration (RFC 7662).

Invariant: every look-up is counted, and what is wrong with the issuer is logged once, not for every
token.
"""

from collections.abc import Callable
from typing import Final

import httpx
from pydantic import SecretStr

from authz.config.model import IntrospectionConfig, IssuerConfig
from authz.telemetry.recorder import Recorder
from authz.telemetry.traced_http import traced_by
from authz.tokens.bulkhead import Bulkhead
from authz.tokens.claims import ClaimRules
from authz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from authz.tokens.introspection_cache import Ages, IntrospectionCache, LookUpEvent
from authz.tokens.introspection_endpoint import IntrospectionEndpoint
from authz.tokens.introspector import Introspector
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import issuer_client

# How much longer than the longest wait of a request a question may take: an answer that comes
# late still fills the cache.
_PATIENCE: Final = 4


class Introspecting:
    """Own what asks the issuer about tokens.

    Attributes:
        introspector: what the verifier is given.
    """

    def __init__(
        self,
        issuer: IssuerConfig,
        configured: IntrospectionConfig,
        credential: SecretStr,
        rules: ClaimRules,
        recorder: Recorder,
    ) -> None:
        """Build it; nothing is asked yet.

        Raises:
            ValueError: where the credential is no private key, and should be one.
        """
        self._recorder = recorder
        total = issuer.deadline * _PATIENCE
        width = configured.concurrency
        self._client: httpx.AsyncClient = issuer_client(
            timeout=total, connections=width, kept=width, wrap=traced_by(recorder.tracer)
        )
        endpoint = IntrospectionEndpoint(
            IssuerAddress(issuer.url, issuer.internal),
            _auth(issuer, configured, credential.get_secret_value()),
            self._client,
            total=total,
        )
        ages = Ages(configured.max_age, configured.negative_age, issuer.deadline)
        lookups = IntrospectionCache(endpoint, rules, ages, Bulkhead(width), observer=self._observe)
        self.introspector = Introspector(lookups)

    async def aclose(self) -> None:
        """End the questions under way and close the connections."""
        await self.introspector.aclose()
        await self._client.aclose()

    def _observe(self, look_up: LookUpEvent) -> None:
        metrics = self._recorder.metrics
        metrics.introspections.labels(look_up.outcome).inc()
        if look_up.seconds is not None:
            metrics.introspection_duration.observe(look_up.seconds)
        if look_up.fault is not None:
            metrics.dependency_errors.labels("issuer").inc()
        if look_up.news:
            fault = "" if look_up.fault is None else look_up.fault.value
            self._recorder.event("introspection", fault=fault, detail=look_up.detail)


def _auth(issuer: IssuerConfig, configured: IntrospectionConfig, credential: str) -> ClientAuth:
    if configured.auth == "private_key_jwt":
        return PrivateKeyJwt(configured.client_id, credential, issuer.url, configured.key_id)
    return _SECRETS[configured.auth](configured.client_id, credential)


_SECRETS: Final[dict[str, Callable[[str, str], ClientAuth]]] = {
    "client_secret_basic": ClientSecretBasic,
    "client_secret_post": ClientSecretPost,
}
