"""Faults of Redis, by the code of its error reply or by how the connection ended.

The code is the first word of an error reply (`READONLY`, `LOADING`, `OOM`) and part of Redis'
protocol. Log, metric and readiness show it; nothing else of the reply is kept.
"""

import re
import ssl
from collections.abc import Mapping
from enum import Enum
from typing import Final

from authz.core.ledger import UnavailableError
from authz.ledger.records import ScriptNotLoadedError


class ReplyError(Exception):
    """Redis' error reply to a command."""


class InvalidReplyError(Exception):
    """What came is no reply: another protocol, or more than one reply."""


class NotConnectedError(ConnectionError):
    """There is no connection to write to or to read from any more."""


class TlsFilesError(Exception):
    """A file of `redis.tls` cannot be read, or holds something else."""


class DiscoveryError(Exception):
    """Nobody says which node takes writes.

    Attributes:
        fault: why.
    """

    def __init__(self, fault: "RedisFault") -> None:
        super().__init__(fault.value)
        self.fault = fault


class RedisFault(Enum):
    """What is wrong, in fixed words for the log and for readiness."""

    READ_ONLY = "READONLY: it is a replica"
    LOADING = "LOADING: it still reads its data"
    MASTER_DOWN = "MASTERDOWN: it is a replica without its primary"
    OUT_OF_MEMORY = "OOM: it has no memory left"
    CANNOT_SAVE = "MISCONF: it cannot save and takes no writes"
    TOO_FEW_REPLICAS = "NOREPLICAS: it has too few replicas and takes no writes"
    CLUSTER_DOWN = "CLUSTERDOWN: its cluster is down"
    MOVED = "MOVED: another node of its cluster has the keys"
    TRY_AGAIN = "TRYAGAIN: its keys are on their way to another node"
    NOT_LOGGED_IN = "NOAUTH: it does not take our user or password"
    NOT_PERMITTED = "NOPERM: its user may not do this"
    BUSY = "BUSY: a script takes too long"
    NO_SCRIPT = "NOSCRIPT: it does not know the script"
    WRONG_TYPE = "WRONGTYPE: a key holds another type"
    NO_SENTINEL = "no sentinel answers"
    NO_SERVICE = "its sentinels do not know the service"
    SENTINEL_LOGIN = "its sentinels do not take our user or password"
    SENTINEL_RIGHTS = "its sentinels do not let our user ask for the primary"
    SENTINEL_TLS = "TLS with its sentinels fails"
    NO_NODE = "no node of its cluster answers"
    NO_CLUSTER = "it is no cluster"
    TLS = "TLS fails: its certificate, or ours, is not accepted"
    TLS_FILES = "a file of redis.tls cannot be read, or holds something else"
    CLOSED = "the connection was refused or closed"
    LATE = "no answer in time"
    OTHER = "another error"


_CODE: Final = re.compile(r"-?([A-Z]{2,16})\b")
_BY_CODE: Final[Mapping[str, RedisFault]] = {
    "WRONGPASS": RedisFault.NOT_LOGGED_IN,
    **{each.value.partition(":")[0]: each for each in RedisFault if ":" in each.value},
}
# Who has not logged in is refused so, in place of NOAUTH, for more than ten arguments or long ones.
_UNAUTHENTICATED: Final = "ERR Protocol error: unauthenticated"
# Errors of one command, which a new connection would not change. After any other error the host
# name may lead to a new primary, which only a new connection finds. (Redis 6 wraps the error of a
# script's command into an ERR, so an unknown error is not among these.)
_OF_ONE_COMMAND: Final = frozenset(
    {
        RedisFault.OUT_OF_MEMORY,
        RedisFault.NOT_PERMITTED,
        RedisFault.BUSY,
        RedisFault.TRY_AGAIN,
        RedisFault.NO_SCRIPT,
        RedisFault.WRONG_TYPE,
    }
)


def fault_of(error: BaseException) -> RedisFault:
    """Return the fault of an error reply, an exception of the socket or of a deadline."""
    if isinstance(error, ReplyError):
        return fault_of_code(str(error))
    if isinstance(error, DiscoveryError):
        return error.fault
    if isinstance(error, TlsFilesError):
        return RedisFault.TLS_FILES
    if isinstance(error, TimeoutError):
        return RedisFault.LATE
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return RedisFault.TLS
    if isinstance(error, OSError):
        return RedisFault.CLOSED
    return RedisFault.OTHER


def describe_fault(error: BaseException) -> str:
    """Return a fault in fixed words; for a defect, the name of the exception's class."""
    fault = fault_of(error)
    return type(error).__name__ if fault is RedisFault.OTHER else fault.value


def fault_of_code(reply: str) -> RedisFault:
    """Return the fault of an error reply, by the code that it begins with."""
    if reply.startswith(_UNAUTHENTICATED):
        return RedisFault.NOT_LOGGED_IN
    code = _CODE.match(reply)
    return RedisFault.OTHER if code is None else _BY_CODE.get(code[1], RedisFault.OTHER)


def unavailable(error: BaseException) -> UnavailableError:
    """Translate an error reply, an exception of the socket or of a deadline."""
    kind = ScriptNotLoadedError if fault_of(error) is RedisFault.NO_SCRIPT else UnavailableError
    found = kind("redis", describe_fault(error))
    found.__cause__ = error  # mypyc passes over the `from` of a `raise`
    return found


def needs_new_connection(fault: RedisFault) -> bool:
    """Tell whether a fault calls for new connections."""
    return fault not in _OF_ONE_COMMAND
