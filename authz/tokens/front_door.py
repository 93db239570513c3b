"""Tokens of the front door: signed by the issuer for one of our own two clients there.

Invariant: such a token is its person's and its client's only by the record of its login. Without a
record, or with one of another person, it is refused; the refusal is not cached, so a record that
comes later holds from then on.
"""

from dataclasses import replace
from typing import Final, Protocol

from authz.core.detail import Detail
from authz.core.principal import LoginRecord, Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError

_UNKNOWN: Final = Reason.LOG_IN_UNKNOWN


class LoginRecordReader(Protocol):
    """Find the log-in behind an access token (`authz.ledger.login_records.LoginRecords`)."""

    async def get(self, token: str) -> LoginRecord | None:
        """Return the record; None where there is none.

        Raises:
            UnavailableError: where Redis does not answer.
        """
        ...


class FrontDoorTokens:
    """Recognise tokens of our two clients, and find the log-ins behind them."""

    def __init__(self, clients: frozenset[str], records: LoginRecordReader) -> None:
        """Take our client ids at the issuer, and what tells log-ins."""
        self._clients = clients
        self._records = records

    def owns(self, principal: Principal) -> bool:
        """Tell whether a token was issued to one of our clients, its log-in not looked up yet."""
        return principal.client_id in self._clients and principal.login is None

    async def known(self, token: str, principal: Principal) -> Principal:
        """Return the principal of a token of ours, with the log-in that is behind it.

        Args:
            token: the whole token, verified.
            principal: what its claims say.

        Raises:
            RefusedError: LOG_IN_UNKNOWN where no log-in of this person is on record for this token.
            UnavailableError: where Redis does not answer.
        """
        if principal.subject is None:
            raise RefusedError(_UNKNOWN, Detail.NO_PERSON)
        login = await self._records.get(token)
        if login is None:
            raise RefusedError(_UNKNOWN, Detail.NO_LOG_IN_RECORD)
        if login.subject != principal.subject:
            raise RefusedError(_UNKNOWN, Detail.RECORD_OF_ANOTHER)
        return replace(
            principal, client_id=login.client, login=login, token_client_id=principal.client_id
        )
