"""Limits: how much, per whom, over what; and the pure take that every back end must equal.

Law: in no period of a limit's window, wherever it begins, is more than its quota admitted; what
is refused is not charged. The window slides in SLOTS steps: a charge is forgotten when the last
moment of its slot is a whole window ago, so a quota comes back at most 1/SLOTS of a window late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

SLOTS: Final = 10


class Per(Enum):
    """Name whose requests a limit counts together."""

    CLIENT = "client"
    USER = "user"
    CLIENT_USER = "client,user"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Limit:
    """Count requests against a quota over a sliding window.

    Attributes:
        name: unique in the policy; printable ASCII, shown to clients in RateLimit fields.
        per: whose requests are counted together.
        quota: units per window, at least `cost`.
        window: seconds.
        cost: units that a request is charged, at least 1.
        place: what is counted: "" everything, a server's name, or server and tool pattern; part
            of the bucket, so that two places never share one.
    """

    name: str
    per: Per
    quota: int
    window: int
    cost: int = 1
    place: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """Charge one bucket.

    Attributes:
        bucket: a digest that names the limit and whose requests it counts (`bucket_id`).
        limit: what to charge against.
    """

    bucket: str
    limit: Limit


@dataclass(frozen=True, slots=True)
class Quota:
    """State how a limit stands.

    Attributes:
        limit: the limit.
        remaining: units left in the window.
        reset: seconds until units come back, rounded up; 0 where none are used.
    """

    limit: Limit
    remaining: int
    reset: int
