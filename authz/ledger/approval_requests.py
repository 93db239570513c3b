"""What persons are asked to approve, in Redis until they decide, and what they approved.

Invariant: a grant has `MOST` requests at most, and its oldest makes room; each is decided once, in
the step that records the approval (tests/ledger/test_approval_requests.py). The ledger's script
reads the record, never the request, nor the list of a person's approvals, which is for pages.
"""

import re
import secrets
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from authz.core.approval import ApprovalKey
from authz.core.ledger import StepUpKey
from authz.core.principal import Person
from authz.core.second_factor import Method
from authz.ledger.bounded_scan import scan_page
from authz.ledger.keys import RedisKeys, approval_name
from authz.ledger.login_records import Command
from authz.ledger.records import encode_approval, encode_step_up, is_approval
from authz.ledger.script import load_script, run_script

MOST: Final = 16  # of one grant, so that no client makes room in another's
MOST_LISTED: Final = 64  # approvals of one person; those that end first are left out
LIFETIME: Final = 600  # seconds since the call was last refused, as links have
# Seconds within which an approved call has to be repeated, and for which a declined one is told so.
APPROVED: Final = 300
DECLINED: Final = 120
_REQUEST: Final = re.compile(rb"([A-Za-z0-9_-]{22}) [0-9]{1,3} ([!-~]+)")
_NAME: Final = re.compile(rb"[0-9a-f]{32,96}")
_LISTED: Final = re.compile(rb"([0-9]{1,15}) ([!-~]+)")


_KEEP: Final = load_script("authz.ledger", "keep_approval_request.lua")
_DECIDE: Final = load_script("authz.ledger", "decide_approval.lua")


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """Hold a request as it is kept.

    Attributes:
        id: drawn when it was first asked; a decision counts for this one alone.
        sealed: what is asked.
    """

    id: str
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LiveApproval:
    """Hold an approval that a person gave and that is neither used up nor over.

    Attributes:
        name: of the approval (`authz.ledger.keys.approval_name`).
        sealed: what it is for.
    """

    name: str
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProvedStepUp:
    """Hold a step-up that is recorded together with an approval.

    Attributes:
        key: whose, and for which server.
        method, auth_time: what the log-in proved, and when.
        lifetime: seconds for which it is kept.
    """

    key: StepUpKey
    method: Method
    auth_time: int
    lifetime: int


class ApprovalRequests:
    """Requests of one deployment; every method may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        """Take what sends one command to Redis, and the names there."""
        self._command = command
        self._keys = keys

    async def keep(self, key: ApprovalKey, sealed: str) -> str:
        """Keep a request, or keep it for longer; return its name.

        Args:
            key: what the approval will be recorded for.
            sealed: what the page needs; printable ASCII.
        """
        name = approval_name(key)
        ring = self._keys.approval_requests(key.person, key.grant)
        drawn = secrets.token_urlsafe(16)
        await run_script(
            self._command,
            _KEEP,
            (self._keys.approval_request(name), ring),
            drawn,
            sealed,
            LIFETIME * 1000,
            MOST,
            len(name),
        )
        return name

    async def some(self, most: int) -> tuple[KeptRequest, ...]:
        """Return requests that wait, so many at most, of those that one bounded scan finds."""
        page = await scan_page(self._command, self._keys.approval_request("*"), 0, most)
        if not page.keys:
            return ()
        found = await self._command("MGET", *page.keys[:most])
        matches = [_REQUEST.fullmatch(each) for each in found if isinstance(each, bytes)]
        return tuple(KeptRequest(each[1].decode(), each[2].decode()) for each in matches if each)

    async def find(self, name: str) -> KeptRequest | None:
        """Return a request by its name; None where there is none, or none any more."""
        found = await self._command("GET", self._keys.approval_request(name))
        match = _REQUEST.fullmatch(found) if isinstance(found, bytes) else None
        return None if match is None else KeptRequest(match[1].decode(), match[2].decode())

    async def decide(
        self,
        key: ApprovalKey,
        request_id: str,
        at: int,
        *,
        lifetime: int,
        approved: bool,
        listed: str = "",
        step_up: ProvedStepUp | None = None,
    ) -> bool:
        """Record a decision; tell whether it counts: where the request is still that one.

        Args:
            key: what it is recorded for.
            request_id: of the request that the person saw.
            at: seconds since the epoch.
            lifetime: seconds for which the decision is kept.
            approved: whether the person approved.
            listed: what the person's list says of it; printable ASCII, empty for nothing.
            step_up: what is recorded with it; None for nothing.
        """
        name = approval_name(key)
        names = [
            self._keys.approval_request(name),
            self._keys.approval(key),
            self._keys.approvals_of(key.person),
        ]
        values: list[bytes | str | int] = [
            encode_approval(at, approved=approved),
            lifetime * 1000,
            name,
            listed,
            MOST_LISTED,
        ]
        if step_up is not None:
            names.append(self._keys.step_up(step_up.key))
            values += [encode_step_up(step_up.method, step_up.auth_time), step_up.lifetime * 1000]
        recorded = await run_script(self._command, _DECIDE, tuple(names), request_id, *values)
        return bool(recorded == 1)

    async def live(self, person: Person) -> tuple[LiveApproval, ...]:
        """Return what a person approved that is neither used up nor over, the last to end first.

        It is what the list says of the approvals that are there; an approval given by an earlier
        release is not in it.
        """
        found = await self._command("HGETALL", self._keys.approvals_of(person))
        matches = {name: _LISTED.fullmatch(value) for name, value in found.items()}
        listed = {
            name.decode(): match
            for name, match in matches.items()
            if match is not None and _NAME.fullmatch(name)
        }
        if not listed:
            return ()
        keys = [self._keys.approval_of_name(name) for name in listed]
        records = await self._command("MGET", *keys)
        live = [
            (int(match[1]), LiveApproval(name, match[2].decode()))
            for (name, match), record in zip(listed.items(), records, strict=True)
            if is_approval(record)
        ]
        return tuple(each for _, each in sorted(live, key=itemgetter(0), reverse=True))

    async def end(self, name: str) -> None:
        """End an approval; nothing where it is none any more."""
        await self._command("DEL", self._keys.approval_of_name(name))
