"""Whether Redis does what the ledger needs of it.

Every command that the ledger uses is tried, because ACL rights cannot be read without more rights.
The one key that is written for that expires within a second.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any, Final

from authz.config.problems import quoted
from authz.core.ledger import Query, UnavailableError
from authz.core.principal import Client
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.doctor.other_client import RUN_ID, run_id
from authz.ledger.faults import RedisFault, ReplyError, fault_of
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.remedies import REMEDIES, Remedy, remedy
from authz.login.protocol.granted_audience import TokenFault

PART: Final = "redis"
_AUDIT: Final = "audit"
_PATIENCE: Final = 2.0
_LIFETIME: Final = 1000  # milliseconds
_SKEW: Final = 2.0
_FOLLOW: Final = "let redis.url lead to the primary, by a name that follows a failover"
_LONGEST_MOMENT: Final = 10  # digits: until the year 2286
_ROUNDS: Final = 5
_USER: Final = "ACL SETUSER {user} ~{{{deployment}}}:* {commands} in Redis (or its ACL file)"

# After one of these nothing else would be learnt.
_ENDS: Final = frozenset({
    *("authentication", "unreachable", "tls", "late", "loading", "master_down"),
    *("no_node", "no_cluster", "unknown_command", "tls_files"),
    *("no_sentinel", "no_service", "sentinel_login", "sentinel_rights", "sentinel_tls"),
})  # fmt: skip
_NEARLY: Final = 0.9  # of maxmemory
_SCRIPT: Final = "return 1"
# Redis names a script by its SHA-1.
_SHA: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

Command = tuple[str, *tuple[str | bytes | int, ...]]


async def examine(
    options: RedisOptions,
    clock: Callable[[], float] = time.time,
    *,
    front_door: bool = False,
    audit: bool = False,
) -> list[Finding]:
    """Look at the Redis of a configuration.

    Args:
        options: where it is.
        clock: seconds since the epoch.
        front_door: whether it keeps log-ins too.
        audit: whether it keeps the audit trail.
    """
    ledger = RedisLedger(replace(options, timeout=_PATIENCE))
    try:
        fault = await _fault(ledger, options)
        if fault is not None and fault.diagnosis in _ENDS:
            return [problem(PART, *fault)]
        findings = await _examined(ledger, options, clock, front_door=front_door)
        found = [*findings, *(await _trail(ledger, options, clock) if audit else ())]
        told = fault is None or fault.diagnosis in {each.diagnosis for each in found}
        return found if told or fault is None else [problem(PART, *fault), *found]
    except UnavailableError as error:
        if _kind(error) is RedisFault.NOT_PERMITTED:
            user = options.username or "default"
            message = f"the user {user} may not even PING"
            return [problem(PART, "no_rights", message, _acl(options, ["ping"]))]
        known = REMEDIES.get(_kind(error))
        if known is not None:
            return [problem(PART, *known)]
        message = f"it does not answer ({error.detail})"
        return [problem(PART, "unreachable", message, "redis.url in authz.yaml, or start Redis")]
    finally:
        await ledger.aclose()


def _kind(error: UnavailableError) -> RedisFault:
    return RedisFault.OTHER if error.__cause__ is None else fault_of(error.__cause__)


async def _fault(ledger: RedisLedger, options: RedisOptions) -> Remedy | None:
    """Return what is wrong with a write of the ledger's own, as the service would meet it."""
    own = options.keys.bucket(f"doctor-{secrets.token_hex(8)}")
    try:
        await ledger.command("SET", own, b"-", "PX", _LIFETIME)
    except UnavailableError as error:
        cause = error.__cause__
        reply = str(cause) if isinstance(cause, ReplyError) else ""
        return None if cause is None else remedy(fault_of(cause), reply)
    return None


async def _examined(
    redis: RedisLedger, options: RedisOptions, clock: Callable[[], float], *, front_door: bool
) -> list[Finding]:
    await redis.ping()
    fastest = await _fastest(redis)
    findings = [ok(PART, "answers", f"it answers: {redis.topology}")]
    if fastest > options.timeout:
        message = f"an answer takes {fastest * 1000:.0f} ms; the service waits {_ms(options)} ms"
        findings.append(problem(PART, "slow", message, "put Redis nearer to authz"))
    lacking = await _lacking(redis, _commands(options, front_door=front_door))
    if lacking:
        user = options.username or "default"
        message = f"the user {user} may not {', '.join(lacking)}"
        findings.append(problem(PART, "no_rights", message, _acl(options, lacking)))
    else:
        findings.append(ok(PART, "rights", "its user may do all that the ledger needs"))
        findings += await _script(redis)
    if front_door and "GET" not in lacking:
        findings += _log_ins(await redis.command("GET", options.keys.login_fault))
    if "INFO" not in lacking:
        about = await redis.command("INFO")
        findings += _about(about, front_door=front_door)
        findings += await _compared(redis, options, about.get(RUN_ID, ""))
    if "TIME" not in lacking:
        seconds, micros = await redis.command("TIME")
        findings += _skew(int(seconds) + int(micros) / 1_000_000 - clock())
    return findings


async def _compared(redis: RedisLedger, options: RedisOptions, ours: str) -> list[Finding]:
    """Tell where another client reaches another server, and no failover came between."""
    other = await run_id(options, _PATIENCE)
    if other in {None, ours} or (await redis.command("INFO", "server")).get(RUN_ID, "") != ours:
        return []
    message = (
        "redis-py, which other programs use, reaches another server than authz: by a sentinel that "
        "was cut off, or a name with several addresses"
    )
    return [warning(PART, "another_server", message, "SENTINEL MASTER at each sentinel; DNS")]


async def _fastest(redis: RedisLedger) -> float:
    times = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        await redis.command("PING")
        times.append(time.perf_counter() - begun)
    return min(times)


def _ms(options: RedisOptions) -> str:
    return f"{options.timeout * 1000:.0f}"


def _commands(options: RedisOptions, *, front_door: bool) -> Iterator[Command]:
    """Yield each command of the ledger and of its script, in a form that changes nothing of it."""
    keys = options.keys
    own = keys.bucket(f"doctor-{secrets.token_hex(8)}")
    yield ("INFO",)
    yield ("TIME",)
    yield ("SET", own, b"-", "PX", _LIFETIME)
    yield ("MGET", own)
    yield ("EXISTS", own)
    yield ("PTTL", own)
    yield ("PEXPIRE", own, _LIFETIME)
    yield ("SETRANGE", own, 0, b"-")
    yield ("HMGET", keys.revocations, b"doctor")
    yield ("HGETALL", keys.revocations)
    # Of the wrong type for that key: who may do it is told so, and nothing is written.
    yield ("HSET", own, b"-", b"-")
    yield ("HDEL", keys.revocations, b"doctor:nobody")
    yield ("SCRIPT LOAD", _SCRIPT)
    yield ("EVALSHA", _SHA, 1, own)
    if front_door:
        yield ("GET", own)
        yield ("EXPIRE", own, 1)
        yield ("HGET", keys.revocations, b"doctor")
        yield ("HLEN", keys.revocations)
        yield ("SCAN", 0, "MATCH", own, "COUNT", 1)
        yield ("DEL", own)


async def _lacking(redis: RedisLedger, commands: Iterable[Command]) -> list[str]:
    """Return the commands that the user may not run."""
    lacking = []
    for name, *arguments in commands:
        try:
            await redis.command(name, *arguments)
        except UnavailableError as error:
            if _kind(error) is RedisFault.NOT_PERMITTED:
                lacking.append(name)
            elif not isinstance(error.__cause__, ReplyError):
                raise
            # What is wrong besides is told by INFO and by the ledger's own script.
    return lacking


async def _script(ledger: RedisLedger) -> list[Finding]:
    """Let the ledger itself ask about a token of nobody's; nothing is charged."""
    nobody = Client("", "doctor")
    try:
        await ledger.take(Query(f"doctor-{secrets.token_hex(8)}", None, nobody, 0, None, None, ()))
    except UnavailableError as error:
        message = f"the ledger's script does not run ({error.detail})"
        cause = error.__cause__
        found = None if cause is None else remedy(fault_of(cause))
        fix = "use Redis 6.2, Valkey 7.2 or a newer one" if found is None else found.fix
        return [problem(PART, "script", message, fix)]
    return []


def _acl(options: RedisOptions, lacking: list[str]) -> str:
    message = (name.lower().replace(" ", "|") for name in lacking)
    return _USER.format(
        user=options.username or "default",
        deployment=options.deployment,
        commands=" ".join(f"+{word}" for word in message),
    )


async def _trail(
    redis: RedisLedger, options: RedisOptions, clock: Callable[[], float]
) -> list[Finding]:
    """Tell whether the audit trail can be written, how long it is and how far it reaches."""
    keys = options.keys
    stream, other = keys.record_set("audit"), keys.record("doctor", secrets.token_hex(8))
    tried: tuple[Command, ...] = (
        # The first writes to no stream that is not there, and the list is empty in the end.
        ("XADD", other, "NOMKSTREAM", "*", "-", "-"),
        ("XTRIM", other, "MAXLEN", 1),
        ("XREVRANGE", other, "+", "-", "COUNT", 1),
        ("LPUSH", other, "-"),
        ("LRANGE", other, 0, 0),
        ("LTRIM", other, 1, 0),
        ("EXPIRE", other, 1),
        ("HGET", keys.record_set("audit-heads"), "-"),
    )
    lacking = await _lacking(redis, tried)
    try:
        length = await redis.command("XLEN", stream)
        oldest = await redis.command("XRANGE", stream, "-", "+", "COUNT", 1)
    except UnavailableError as error:
        if _kind(error) is RedisFault.WRONG_TYPE:
            message = "its key is no stream: the audit trail is not written"
            return [problem(_AUDIT, "no_stream", message, f"DEL {stream.decode()} in Redis")]
        if _kind(error) is not RedisFault.NOT_PERMITTED:
            raise
        lacking += ["XLEN", "XRANGE"]
    if lacking:
        user = options.username or "default"
        message = f"the user {user} may not {', '.join(lacking)}: the trail is not written"
        return [problem(_AUDIT, "no_rights", message, _acl(options, lacking))]
    if not oldest:
        return [ok(_AUDIT, "empty", "its user may write the audit trail, which is empty")]
    days = max(0.0, clock() - int(oldest[0][0].partition(b"-")[0]) / 1000) / 86_400
    message = f"the audit trail has {length} records and reaches back {days:.1f} days"
    return [ok(_AUDIT, "reaches", message)]


def _about(info: Mapping[str, str], *, front_door: bool) -> Iterator[Finding]:
    policy, role = info.get("maxmemory_policy", ""), info.get("role", "")
    if policy != "noeviction":
        message = (
            f"it may forget records to save memory (maxmemory-policy {quoted(policy)}): a revoked "
            "token would pass again, and a limit begin anew"
        )
        fix = "maxmemory-policy noeviction in redis.conf"
        yield problem(PART, "evicts", message, fix)
    if role != "master":
        message = "it is a replica and takes no charges"
        yield problem(PART, "replica", message, _FOLLOW)
    yield from _persistence(info, front_door=front_door)
    most, used = _number(info, "maxmemory"), _number(info, "used_memory")
    if not most:
        message = "its memory has no bound but the machine's"
        yield note(PART, "no_maxmemory", message, "maxmemory in redis.conf, with noeviction")
    elif used > _NEARLY * most:
        message = (
            f"its memory is nearly full ({used / most:.0%} of maxmemory): then it takes no writes"
        )
        yield warning(PART, "nearly_full", message, "raise maxmemory in redis.conf")


def _persistence(info: Mapping[str, str], *, front_door: bool) -> Iterator[Finding]:
    """Say what a restart loses, and whether what ought to be kept can be written."""
    lost = "revocations and step-ups" + (", and everybody's log-ins" if front_door else "")
    if info.get("aof_enabled", "0") == "0":
        message = f"without an append-only file a restart may lose {lost}"
        yield warning(PART, "no_persistence", message, "appendonly yes in redis.conf")
    elif info.get("aof_last_write_status", "ok") != "ok":
        message = f"it cannot write its append-only file: a restart would lose {lost}"
        yield problem(PART, "cannot_append", message, "free its disk; its own log says more")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        message = "its last snapshot failed"
        yield warning(PART, "snapshot_failed", message, "free its disk; its own log says more")


def _number(info: Mapping[str, str], name: str) -> float:
    found = info.get(name, "")
    return float(found) if found.isdecimal() else 0.0


def _log_ins(held: Any) -> Iterator[Finding]:
    """Tell of the last log-in that the front door had to end, as it was kept for a day."""
    if not isinstance(held, bytes):
        return
    moment, _, fault = held.decode("ascii", "replace").partition(" ")
    if not moment.isdigit() or len(moment) > _LONGEST_MOMENT:
        return
    when = datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    message = f"a log-in of {when} was ended: {quoted(fault)}"
    if fault == TokenFault.OPAQUE:
        fix = (
            "access_token_signed_response_alg: RS256 for our two clients at Authelia: print `authz "
            "authelia-config` again and restart Authelia with it"
        )
        yield problem("clients", "log_in_opaque", message, fix)
        return
    fix = (
        "the front door asks Authelia for the server's URL as `audience`: print `authz "
        "authelia-config` again and restart Authelia with it; where that changes nothing, this "
        "release of Authelia grants it otherwise than 4.39.20 and its successors do"
    )
    yield problem("clients", "log_in_audience", message, fix)


def _skew(ahead: float) -> Iterator[Finding]:
    if abs(ahead) <= _SKEW:
        yield ok(PART, "clock", "its clock agrees with ours")
        return
    direction = "ahead of" if ahead > 0 else "behind"
    message = f"its clock is {abs(ahead):.0f} s {direction} ours: revocations and step-ups shift"
    yield problem(PART, "clock_skew", message, "set both clocks by NTP")
