"""Second factors: what a rule requires, what `amr` proves (RFC 8176), and their comparison.

Invariant: nothing satisfies a rule but evidence that names the method.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntFlag


class Method(IntFlag):
    """Name what a log-in proved, as bits, so that the ledger script can compare them.

    ANY is any second factor (`mfa` in RFC 8176 terms), OTP a one-time password. TOTP sets both.
    """

    NONE = 0
    ANY = 1
    OTP = 2
    TOTP = 3


class Evidence(Enum):
    """The places that a proof may come from (`evidence` of a rule)."""

    LOGIN = "login"
    STEP_UP = "step_up"
    TOKEN = "token"  # noqa: S105 - the place's name, not a secret
    CLIENT = "client"


ALL_EVIDENCE = frozenset(Evidence)

# What Authelia's `amr` values say (facts: password `pwd kba`, + TOTP `otp mfa`, + WebAuthn
# `pop hwk|swk mfa`, + Duo `sms mfa mca`, passkey alone `pop` without `mfa`). An `otp` without
# `mfa` is a one-time password and nothing else: not a second factor.
_METHODS: dict[str, Method] = {"mfa": Method.ANY, "otp": Method.OTP}


def methods(amr: Iterable[str]) -> Method:
    """Return what an `amr` (RFC 8176) proves; unknown values prove nothing."""
    proved = Method.NONE
    for value in amr:
        proved |= _METHODS.get(value, Method.NONE)
    return proved


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """A second factor that a rule requires.

    Attributes:
        method: Method.ANY or Method.TOTP.
        max_login_age: seconds since `auth_time` (the last password or TOTP typed at the issuer);
            None where the age does not matter.
        evidence: the places that a proof may come from.
    """

    method: Method
    max_login_age: int | None = None
    evidence: frozenset[Evidence] = ALL_EVIDENCE


@dataclass(frozen=True, slots=True)
class Proof:
    """What one piece of evidence proves.

    Attributes:
        source: the place it comes from.
        method: what it proves.
        auth_time: seconds since the epoch; None where the evidence has no age (a client
            declaration), which satisfies no rule with `max_login_age`.
    """

    source: Evidence
    method: Method
    auth_time: int | None


# How far an issuer's clock may be ahead of ours before its auth_time is disbelieved.
LEEWAY = 60


def proves(rule: SecondFactor, proof: Proof) -> bool:
    """Tell whether a proof comes from an accepted place and names the method, however old."""
    return proof.source in rule.evidence and proof.method & rule.method == rule.method


def satisfies(rule: SecondFactor, proof: Proof, now: float) -> bool:
    """Tell whether a proof satisfies a rule, its age included."""
    if not proves(rule, proof):
        return False
    if rule.max_login_age is None:
        return True
    if proof.auth_time is None:
        return False
    return -LEEWAY <= now - proof.auth_time <= rule.max_login_age


@dataclass(frozen=True, slots=True)
class StepUpNeed:
    """What one step-up record has to prove to satisfy several rules at once.

    Attributes:
        method: every method that any of the rules requires.
        max_login_age: the strictest age, seconds; None where no rule has one.
    """

    method: Method
    max_login_age: int | None


def merge(rules: Iterable[SecondFactor]) -> StepUpNeed:
    """Return the need that satisfies all the rules: every method, the strictest age."""
    method, age = Method.NONE, None
    for rule in rules:
        method |= rule.method
        if rule.max_login_age is not None:
            age = rule.max_login_age if age is None else min(age, rule.max_login_age)
    return StepUpNeed(method, age)
