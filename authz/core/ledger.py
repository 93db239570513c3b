"""The question that a decision asks of the ledger, and every answer to it.

Invariant: one query, one answer, one round trip. The ledger answers in this order: revoked; session
of another; step-up missing or too old; approval declined or missing; over a limit; only then it
charges all limits or none, binds the session, and uses up the approval of one call.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from authz.core.approval import Approval, ApprovalKey
from authz.core.limits import Quota, Take
from authz.core.principal import Client, Person
from authz.core.second_factor import StepUpNeed


class UnavailableError(Exception):
    """A dependency did not answer in time: a fault of ours, never a verdict.

    Attributes:
        dependency: of a bounded set, for metrics: `redis`, `issuer`.
        detail: fixed text for the log.
        retry_after: seconds after which it may answer again; None where that is not known.
    """

    def __init__(
        self, dependency: str, detail: str = "", *, retry_after: int | None = None
    ) -> None:
        """Keep whose fault it is, the words for the log and the seconds to wait."""
        super().__init__(dependency, detail)
        self.dependency = dependency
        self.detail = detail
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class StepUpKey:
    """Name a step-up record: one client's step-up helps no other client, person or server.

    Attributes:
        person: who stepped up.
        grant: the front door's grant id; for clients of `login: direct` their client id.
        server: the server's name.
    """

    person: Person
    grant: str
    server: str


@dataclass(frozen=True, slots=True)
class Session:
    """Bind a session of an MCP server to whoever uses it first (`authz.core.session`).

    Attributes:
        id: a digest that names the server and its session.
        owner: a digest that names the caller: the person or machine, and the client.
        person: a digest that names the person or machine alone: of each the newest
            `MOST_SESSIONS` stay bound, so that nobody fills the store with invented ids.
        lifetime: seconds for which the binding outlives its last use.
    """

    id: str
    owner: str
    person: str
    lifetime: int


MOST_SESSIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class Query:
    """What the ledger is asked for one decision.

    Attributes:
        token_id, person, client, issued_at, grant: what a revocation may name. A revocation
            denies a token by its id, or all tokens of a person, of a client, of a grant of the
            front door (None for a token that is of none) or of everybody, either for good or
            those issued at or before a moment.
        registered_client: the client as it names itself at the front door, where that is not its
            name here: a revocation may use that name, too. None for all others.
        step_up_key, step_up: the record to look for and what it must prove; None together
            where no step-up is needed.
        takes: the limits to charge, all or none.
        session: the session that the request names; None where it names none.
        approval_key: the record of an approval to look for, and what it must be; None where none
            is needed.
    """

    token_id: str
    person: Person | None
    client: Client
    issued_at: int
    step_up_key: StepUpKey | None
    step_up: StepUpNeed | None
    takes: tuple[Take, ...]
    grant: str | None = None
    registered_client: Client | None = None
    session: Session | None = None
    approval_key: ApprovalKey | None = None

    def __post_init__(self) -> None:
        """Refuse a need without a record to look for: it could be taken for no need at all.

        Raises:
            ValueError: where one of step_up_key and step_up is None and the other is not; where an
                approval of each call names no call, or another one does.
        """
        if (self.step_up_key is None) != (self.step_up is None):
            raise ValueError("step_up_key and step_up come together")
        key = self.approval_key
        if key is not None and (key.call is None) == key.approval.each_call:
            raise ValueError("an approval of each call, and no other, names the call")

    @property
    def approval(self) -> Approval | None:
        """Return the approval that is needed; None where none is."""
        return None if self.approval_key is None else self.approval_key.approval


class Mode(Enum):
    """Who counted: Redis, the in-memory ledger while Redis is down, or nobody."""

    REDIS = "redis"
    LOCAL = "local"
    UNLIMITED = "unlimited"


@dataclass(frozen=True, slots=True)
class Revoked:
    """The token, or its person, client or grant, or everything issued by then is revoked."""

    what: str  # one of: token, person, client, grant, everything


@dataclass(frozen=True, slots=True)
class SessionOfAnother:
    """Another caller used the session first."""


@dataclass(frozen=True, slots=True)
class StepUpMissing:
    """No step-up record proves what is required."""


@dataclass(frozen=True, slots=True)
class StepUpTooOld:
    """There is a step-up record with the method, but its log-in is too old."""


@dataclass(frozen=True, slots=True)
class ApprovalMissing:
    """There is no approval, or it was used."""


@dataclass(frozen=True, slots=True)
class ApprovalDeclined:
    """The person declined the approval a moment ago."""


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A limit is exhausted; nothing was charged.

    Attributes:
        quotas: one for every take, in order, as they stand.
        retry_after: seconds until a request like this one can pass, rounded up, at least 1.
    """

    quotas: tuple[Quota, ...]
    retry_after: int


@dataclass(frozen=True, slots=True)
class Taken:
    """All passed, and every take was charged.

    Attributes:
        quotas: one for every take, in order, after the charge.
        mode: who counted.
    """

    quotas: tuple[Quota, ...]
    mode: Mode


LedgerAnswer = (
    Revoked
    | SessionOfAnother
    | StepUpMissing
    | StepUpTooOld
    | ApprovalMissing
    | ApprovalDeclined
    | OverLimit
    | Taken
)


class Ledger(Protocol):
    """Answer queries (`RedisLedger`, `MemoryLedger`, `ResilientLedger`)."""

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query, atomically.

        Raises:
            UnavailableError: where there is no answer, and `redis.mode` provides none.
        """
        ...
