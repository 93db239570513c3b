"""Why a request would be decided as it would: each step, by the functions that serve.

Invariant: nothing is charged, and the token is in no step (tests/server/test_explain.py).
"""

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from authz.config.load import Settings
from authz.core.catalogue import UNLISTED, Catalogue, catalogue_of
from authz.core.decision import (
    BearerRequest,
    Decision,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    confirmed,
    denied,
    inspect,
    read,
)
from authz.core.detail import Detail
from authz.core.ledger import (
    Ledger,
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    Revoked,
    SessionOfAnother,
    StepUpMissing,
    StepUpTooOld,
    Taken,
    UnavailableError,
)
from authz.core.limits import Quota, unsatisfiable_takes
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.ledger.keys import RedisKeys
from authz.ledger.memory import MemoryLedger
from authz.ledger.redis import RedisLedger
from authz.ledger.sightings import RedisSightings
from authz.server.assemble import Identity, front_door_tokens
from authz.server.check import FAULTS
from authz.server.redis_options import redis_options
from authz.server.step_descriptions import bearer_words, step_words
from authz.telemetry.audit import EventLog, Record
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.verifier import Stage

_PATIENCE: Final = 2.0  # seconds for Redis: a person waits longer than a request may
_SIGNED: Final = (
    Stage.SHAPE,
    Stage.ISSUER,
    Stage.KEY,
    Stage.SIGNATURE,
    Stage.CLAIMS,
    Stage.LOG_IN,
)
_OPAQUE: Final = (Stage.SHAPE, Stage.INTROSPECTION)
_ELSEWHERE: Final = "kept in each worker's memory (no redis.url): it cannot be seen from here"


class StepOutcome(Enum):
    """Tell what became of a step."""

    PASSED = "passed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """Tell one step.

    Attributes:
        name: `shape`, `token.signature`, `scopes`, …
        outcome: what became of it.
        words: what was seen.
        reason: why it refuses; None where it does not.
        notes: a line for each piece of it: evidence, limits.
    """

    name: str
    outcome: StepOutcome
    words: str
    reason: Reason | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the members as JSON values."""
        return {
            "name": self.name,
            "outcome": self.outcome.value,
            "words": self.words,
            "reason": None if self.reason is None else self.reason.label,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """Hold all steps that were reached, and the decision that they lead to."""

    steps: tuple[Step, ...]
    decision: Decision
    principal: Principal | None = None


class _Kept(EventLog):
    """Keep the service's events in place of writing them."""

    def __init__(self) -> None:
        super().__init__("json", io.StringIO())
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        """Keep one."""
        self.records.append(record)


async def explain(settings: Settings, request: HttpRequest, env: Mapping[str, str]) -> Explanation:
    """Follow a request through the decision.

    Args:
        settings: authz.yaml, with its secrets.
        request: as Envoy would describe it.
        env: the environment, which may say where Redis is.
    """
    policy = settings.policy
    call = read(request, policy)
    steps = [*_read_steps(call, request)]
    if isinstance(call, Deny):
        return Explanation(tuple(steps), call)
    log = _Kept()
    recorder = Recorder(Metrics(), log)
    options = redis_options(settings, env)
    remote = None if options is None else RedisLedger(replace(options, timeout=_PATIENCE))
    identity = Identity(
        settings.config.issuer,
        settings.secrets.introspection,
        recorder,
        front_door_tokens(settings, options, None if remote is None else remote.command),
        settings.config.counted_claims,
    )
    keys = None if options is None else options.keys
    found: Explanation | BaseException
    try:
        catalogue = await _catalogue(call, remote, keys)
        found = await _followed(
            call, settings, identity, remote, log, steps=steps, catalogue=catalogue
        )
    except BaseException as error:  # noqa: BLE001 - raised below, and not awaited here (`asgi.py`)
        found = error
    await identity.aclose()
    if remote is not None:
        await remote.aclose()
    if isinstance(found, BaseException):
        raise found
    return found


async def _catalogue(
    call: BearerRequest, ledger: RedisLedger | None, keys: RedisKeys | None
) -> Catalogue:
    """Return what the workers know of a server's tools; nothing where it cannot be seen."""
    if not call.server.uses_catalogue or ledger is None or keys is None:
        return UNLISTED
    try:
        return catalogue_of(await RedisSightings(ledger.command, keys).read(call.server.name))
    except UnavailableError:
        return UNLISTED


async def _followed(
    call: BearerRequest,
    settings: Settings,
    identity: Identity,
    ledger: RedisLedger | None,
    log: _Kept,
    *,
    steps: list[Step],
    catalogue: Catalogue,
) -> Explanation:
    verified = await _verified(call, identity, log, steps)
    if isinstance(verified, Deny):
        return Explanation(tuple(steps), verified)
    judged = await _judged(call, verified, settings, identity, steps, catalogue=catalogue)
    decision = (
        judged if isinstance(judged, Deny) else await _concluded(judged, settings, ledger, steps)
    )
    return Explanation(tuple(steps), decision, verified)


# --- shape, server, bearer ----------------------------------------------------------------------

_BEARER: Final = frozenset({Reason.TOKEN_MISSING, Reason.TOKEN_MALFORMED})


def _read_steps(call: BearerRequest | Deny, request: HttpRequest) -> list[Step]:
    """Tell the three steps of `read`; its reason says at which it ended."""
    names = ("shape", "server", "bearer")
    ended = len(names)
    if isinstance(call, Deny):
        ended = {Reason.UNKNOWN_SERVER: 1, **dict.fromkeys(_BEARER, 2)}.get(call.reason, 0)
        # GET and DELETE at a server without sessions: the server's refusal, by the shape's reason.
        if call.detail == Detail.SESSIONS_NOT_ACCEPTED:
            ended = 1
    words = bearer_words(call, request)
    steps = [Step(name, StepOutcome.PASSED, words[name]) for name in names[:ended]]
    if isinstance(call, Deny):
        steps.append(_refused(names[ended], call.reason, call.detail))
    return steps


def _refused(name: str, reason: Reason, detail: str = "", notes: tuple[str, ...] = ()) -> Step:
    return Step(name, StepOutcome.REFUSED, detail or reason.row.sentence, reason, notes)


# --- the token ----------------------------------------------------------------------------------


async def _verified(
    call: BearerRequest, identity: Identity, log: _Kept, steps: list[Step]
) -> Principal | Deny:
    passed: list[Stage] = []
    deny: Deny | None = None
    principal = None
    try:
        principal = await identity.verifier.verify(
            call.token, opaque=call.server.accepts_opaque, passed=passed.append
        )
    except RefusedError as refused:
        deny = denied(refused, call.server)
    except UnavailableError as fault:
        told = "".join(f" ({each['fault']}: {each['detail']})" for each in _faults(log))
        reason = FAULTS.get(fault.dependency, Reason.INTERNAL)
        deny = Deny(reason, f"{fault.detail}{told}", call.server)
    steps += [Step(f"token.{each.value}", StepOutcome.PASSED, _STAGES[each]) for each in passed]
    if deny is not None:
        stages = _OPAQUE if call.token.count(".") < 2 else _SIGNED  # noqa: PLR2004 - of a JWS
        stage = stages[min(len(passed), len(stages) - 1)]
        steps.append(_refused(f"token.{stage.value}", deny.reason, deny.detail))
        return deny
    assert principal is not None
    return principal


def _faults(log: _Kept) -> list[Record]:
    return [each for each in log.records if each.get("fault")][-1:]


_STAGES: Final[Mapping[Stage, str]] = {
    Stage.SHAPE: "well-formed",
    Stage.ISSUER: "of the configured issuer",
    Stage.KEY: "its key is in the issuer's key set",
    Stage.SIGNATURE: "verifies with that key",
    Stage.CLAIMS: "as RFC 9068 asks, and not expired",
    Stage.LOG_IN: "the front door has its log-in on record",
    Stage.INTROSPECTION: "the issuer says that it is active",
}


# --- the rules ----------------------------------------------------------------------------------


async def _judged(
    call: BearerRequest,
    principal: Principal,
    settings: Settings,
    identity: Identity,
    steps: list[Step],
    *,
    catalogue: Catalogue,
) -> PendingDecision | Deny:
    policy, now = settings.policy, time.time()
    seen = inspect(call, principal, policy, now, catalogue)
    for name, refused in seen.steps:
        words, notes = step_words(name, seen, call, now)
        if refused is None:
            steps.append(Step(name, StepOutcome.PASSED, words, notes=notes))
        else:
            words = f"{words}; {refused.detail}" if words and refused.detail else words
            steps.append(_refused(name, refused.reason, words or refused.detail, notes))
    decided = authorize(call, principal, policy, now, catalogue=catalogue)
    if isinstance(decided, Deny) or decided.confirm_since is None:
        return decided
    since = decided.confirm_since
    try:
        principal = await identity.verifier.confirm(call.token, principal, since)
    except RefusedError as refused:
        decided = replace(denied(refused, call.server), message=decided.message)
    except UnavailableError as fault:
        decided = Deny(Reason.ISSUER_UNAVAILABLE, fault.detail, call.server)
    else:
        decided = confirmed(decided, principal, policy, now, catalogue=catalogue)
    if isinstance(decided, Deny):
        steps.append(_refused("confirm", decided.reason, decided.detail))
    else:
        steps.append(Step("confirm", StepOutcome.PASSED, "the issuer was asked, and agrees"))
    return decided


# --- the ledger ---------------------------------------------------------------------------------


async def _concluded(
    pending: PendingDecision, settings: Settings, ledger: RedisLedger | None, steps: list[Step]
) -> Decision:
    if ledger is None:
        steps.append(Step("ledger", StepOutcome.UNKNOWN, _ELSEWHERE))
        # An empty one: it knows no step-up either, and then says so.
        return conclude(pending, await _looked(MemoryLedger(time.time), pending.query))
    try:
        answer = await _looked(ledger, pending.query)
    except UnavailableError as fault:
        mode = settings.config.redis.mode
        words = f"Redis does not answer ({fault.detail}); redis.mode is {mode}"
        steps.append(Step("ledger", StepOutcome.UNKNOWN, words, Reason.LEDGER_UNAVAILABLE))
        return Deny(Reason.LEDGER_UNAVAILABLE, words, pending.call.server)
    decision = conclude(pending, answer)
    steps += _ledger_steps(pending.query, answer, decision)
    return decision


async def _looked(ledger: Ledger, query: Query) -> LedgerAnswer:
    """Ask the ledger as a decision does, together with what can never be charged."""
    answer = await ledger.take(replace(query, takes=(*query.takes, *unsatisfiable_takes())))
    if not isinstance(answer, OverLimit):
        return answer
    quotas = answer.quotas[: len(query.takes)]
    short = [each.reset for each in quotas if each.exceeded and not each.limit.shadow]
    return OverLimit(quotas, max(1, *short)) if short else Taken(quotas, Mode.REDIS)


def _ledger_steps(query: Query, answer: LedgerAnswer, decision: Decision) -> Iterator[Step]:
    """Tell the answers of a ledger, in its order, up to the one that it gave."""
    refusal = decision if isinstance(decision, Deny) else None
    if refusal is not None and isinstance(answer, Revoked):
        yield _refused("revocations", refusal.reason, f"revoked: {refusal.detail}")
        return
    yield Step("revocations", StepOutcome.PASSED, "nothing revoked names it")
    if refusal is not None and isinstance(answer, SessionOfAnother):
        yield _refused("session", refusal.reason)
        return
    if query.session is not None:
        yield Step("session", StepOutcome.PASSED, "in nobody else's use")
    if refusal is not None and isinstance(answer, StepUpMissing | StepUpTooOld):
        yield _refused("step_up", refusal.reason, refusal.detail)
        return
    if query.step_up is not None:
        yield Step("step_up", StepOutcome.PASSED, "recorded, and new enough")
    if refusal is not None and not isinstance(answer, OverLimit):
        yield _refused("approval_record", refusal.reason, refusal.detail)
        return
    if query.approval is not None:
        yield Step("approval_record", StepOutcome.PASSED, "approved; it was not used up by this")
    notes = tuple(_quota(each) for each in decision.quotas)
    if refusal is not None:
        yield _refused("limits", refusal.reason, "", notes)
    else:
        yield Step("limits", StepOutcome.PASSED, "as they stand; nothing was charged", notes=notes)


def _quota(quota: Quota) -> str:
    limit = quota.limit
    back = f", units come back in {quota.reset} s" if quota.reset else ""
    shadow = ", in shadow: it refuses nothing" if limit.shadow else ""
    near = f", past {limit.warn_at} %: its caller is told" if quota.is_near else ""
    window = f"{limit.window} s" if limit.calendar is None else f"a {limit.calendar}"
    return f"{limit.name}: {quota.remaining} of {limit.quota} left in {window}{back}{shadow}{near}"
