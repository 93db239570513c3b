"""What is sent about a security event, in the form of each kind of target.

Invariant: a value that a caller chose is escaped, short and on one line, and names nobody and
nothing in a chat; without `people` neither a person nor an address is named
(tests/notify/test_messages.py).
"""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from hashlib import sha256
from typing import Final

from authz.telemetry.security_events import (
    EventFacts,
    SecurityEvent,
    SecurityNotice,
    ecs_fields,
)

_MAX_VALUE: Final = 96  # characters of a value, before it is escaped
_PERSONAL: Final = ("user.id", "source.ip")
_EVENTS: Final = {each.label: each for each in SecurityEvent}


class NotifyForm(Enum):
    """Name the forms of messages, as authz.yaml does."""

    NTFY = "ntfy"
    GOTIFY = "gotify"
    SLACK = "slack"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class NotifyTarget:
    """Say where messages go; `repr` shows no secret.

    Attributes:
        name: by which authz.yaml, the log and the command line name it.
        form: of its messages.
        url: of the topic (ntfy), the server (Gotify), or what is posted to.
        token: a bearer token, or Gotify's application token; empty for none.
        signing_key: signs JSON, as `whsec_` and base64; empty for none.
        authority: a file of certificates that are trusted in place of the system's; or empty.
        events: the labels of those that are told.
        people: whether persons and addresses are named.
    """

    name: str
    form: NotifyForm
    url: str = field(repr=False)
    token: str = field(default="", repr=False)
    signing_key: str = field(default="", repr=False)
    authority: str = ""
    events: tuple[str, ...] = ()
    people: bool = False

    def to_json(self) -> str:
        """Return it for the process that sends; with its secrets."""
        return json.dumps(asdict(self) | {"form": self.form.value})

    @classmethod
    def of_json(cls, text: str) -> "NotifyTarget":
        """Read what `to_json` wrote."""
        said = json.loads(text)
        return cls(**{**said, "form": NotifyForm(said["form"]), "events": tuple(said["events"])})


@dataclass(frozen=True, slots=True)
class TimedNotice:
    """One notice and when it was told.

    Attributes:
        notice: what is told; None for a test message.
        at: seconds since the epoch.
    """

    notice: SecurityNotice | None
    at: float

    @property
    def label(self) -> str:
        """Return the event's name."""
        return "test" if self.notice is None else self.notice.event.label

    def encode(self) -> bytes:
        """Return it for another process: 9,000 bytes at most, whatever is in it.

        What no form shows of a value is left out, so that no value is too long to be handed over.
        """
        notice = self.notice
        said: dict[str, object] = {"at": self.at}
        if notice is not None:
            facts = {name: value[:_MAX_VALUE] for name, value in asdict(notice.facts).items()}
            said |= asdict(notice) | {"event": notice.event.label, "facts": facts}
        return json.dumps(said).encode()

    @classmethod
    def decode(cls, text: bytes) -> "TimedNotice":
        """Read what `encode` wrote.

        Raises:
            ValueError, TypeError, KeyError: where it is something else.
        """
        said = json.loads(text)
        at = float(said.pop("at"))
        if not said:
            return cls(None, at)
        facts, event = EventFacts(**said.pop("facts")), _EVENTS[said.pop("event")]
        return cls(SecurityNotice(event, facts, **said), at)


@dataclass(frozen=True, slots=True)
class NotifyRequest:
    """One HTTP POST; `repr` shows no secret."""

    url: str = field(repr=False)
    body: bytes
    headers: Mapping[str, str] = field(repr=False)


def notify_request(target: NotifyTarget, timed: TimedNotice, delivery: str) -> NotifyRequest:
    """Return what is posted to a target.

    Args:
        target: where.
        timed: what is told.
        delivery: an id, the same for each attempt to send it.
    """
    url, said, headers = _FORMS[target.form](target, timed)
    body = json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    headers = {"content-type": "application/json", "user-agent": "authz", **headers}
    if target.form is NotifyForm.JSON:
        headers["webhook-id"] = delivery
        headers["webhook-timestamp"] = str(int(timed.at))
        if target.signing_key:
            signed = b".".join((delivery.encode(), str(int(timed.at)).encode(), body))
            headers["webhook-signature"] = sign(target.signing_key, signed)
    return NotifyRequest(url, body, headers)


def sign(key: str, signed: bytes) -> str:
    """Return a signature as Standard Webhooks has it: HMAC-SHA256 of id, timestamp and body."""
    secret = b64decode(key.rpartition("_")[2], validate=True)  # behind `whsec_`
    return "v1," + b64encode(hmac.new(secret, signed, sha256).digest()).decode()


# --- forms --------------------------------------------------------------------------------------

_Said = tuple[str, Mapping[str, object], Mapping[str, str]]


def _ntfy(target: NotifyTarget, timed: TimedNotice) -> _Said:
    """Post to the root with the topic as a member (docs.ntfy.sh, "Publish as JSON")."""
    root, _, topic = target.url.rpartition("/")
    said = {
        "topic": topic,
        "title": _title(timed),
        "message": _text(target, timed),
        "priority": (3, 2, 3, 5)[_severity(timed)],
    }
    return f"{root}/", said, _bearer(target)


def _gotify(target: NotifyTarget, timed: TimedNotice) -> _Said:
    """Post to `/message` with the application's token; a message without extras is plain text."""
    priority = (5, 2, 5, 8)[_severity(timed)]
    said = {"title": _title(timed), "message": _text(target, timed), "priority": priority}
    return f"{target.url}/message", said, {"x-gotify-key": target.token}


def _slack(target: NotifyTarget, timed: TimedNotice) -> _Said:
    """Post a text in which values are code: nothing in there is a link, a mention or a style.

    Slack reads `<!channel>`; Mattermost, which takes the same form, reads `@channel` too.
    """
    lines = [
        f"{name}: `{_escape(value).replace('`', chr(39))}`" for name, value in _lines(target, timed)
    ]
    return target.url, {"text": "\n".join([f"*{_escape(_title(timed))}*", *lines])}, {}


def _json(target: NotifyTarget, timed: TimedNotice) -> _Said:
    """Post the ECS document."""
    notice = timed.notice
    if notice is None:
        fields: dict[str, object] = {"event.action": "test", "message": _title(timed)}
    else:
        fields = ecs_fields(notice, timed.at)
    hidden = () if target.people else _PERSONAL
    said = {name: value for name, value in fields.items() if name not in hidden}
    return target.url, said, _bearer(target)


_FORMS: Final[Mapping[NotifyForm, Callable[[NotifyTarget, TimedNotice], _Said]]] = {
    NotifyForm.NTFY: _ntfy,
    NotifyForm.GOTIFY: _gotify,
    NotifyForm.SLACK: _slack,
    NotifyForm.JSON: _json,
}


def _bearer(target: NotifyTarget) -> Mapping[str, str]:
    return {"authorization": f"Bearer {target.token}"} if target.token else {}


def _severity(timed: TimedNotice) -> int:
    return 0 if timed.notice is None else timed.notice.event.value.severity


def _title(timed: TimedNotice) -> str:
    return "A test message of authz" if timed.notice is None else timed.notice.event.value.title


def _text(target: NotifyTarget, timed: TimedNotice) -> str:
    return "\n".join(f"{name}: {value}" for name, value in _lines(target, timed)) or "It works."


def _lines(target: NotifyTarget, timed: TimedNotice) -> list[tuple[str, str]]:
    """Return names and values; a value is printable ASCII on one line."""
    notice = timed.notice
    if notice is None:
        return []
    facts = notice.facts
    values = [
        ("event", notice.event.label),
        ("server", facts.server),
        ("tool", facts.tool),
        ("client", facts.client),
        ("reason", facts.reason),
        ("request", facts.request_id),
    ]
    if target.people:
        values += [("person", facts.person), ("address", facts.address)]
    if notice.occurrences > 1 or notice.left_out:
        values.append(("occurrences", f"{notice.occurrences}{' more' * notice.left_out}"))
    if notice.sources > 1:
        values.append(("addresses", str(notice.sources)))
    # As JSON writes a text: controls and what is not ASCII are escapes.
    return [(name, json.dumps(value[:_MAX_VALUE])[1:-1]) for name, value in values if value]


def _escape(text: str) -> str:
    """Escape what Slack reads as control characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
