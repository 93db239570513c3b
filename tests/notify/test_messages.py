"""Messages: what a caller chose stays a value, and what is secret or personal is not in them."""

import base64
import hashlib
import hmac
import json
import re
from dataclasses import asdict
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from authz.notify.messages import (
    NotifyForm,
    NotifyRequest,
    NotifyTarget,
    TimedNotice,
    notify_request,
)
from authz.server.worker_control import LONGEST, NOTICE
from authz.telemetry.security_events import EventFacts, SecurityEvent, SecurityNotice, ecs_fields

_KEY: Final = "whsec_" + base64.b64encode(b"k" * 32).decode()
_SHOWN: Final = 96  # characters of a value, in any form


def _notices(longest: int) -> st.SearchStrategy[SecurityNotice]:
    return st.builds(
        SecurityNotice,
        st.sampled_from(list(SecurityEvent)),
        st.builds(EventFacts, *[st.text(max_size=longest)] * 7),
        st.integers(1, 10**6),
        left_out=st.booleans(),
        sources=st.integers(0, 32),
    )


_NOTICES: Final = _notices(2 * _SHOWN)
_EVIL: Final = (
    "<!channel> <https://evil.example|here> `@here` *b* & \u202e\n[x](http://evil.example)"
)


def target(form: NotifyForm, **changes: object) -> NotifyTarget:
    url = "https://push.example/authz"
    return NotifyTarget("phone", form, url, **{"token": "tk_hunter2", **changes})  # type: ignore[arg-type]


def posted(form: NotifyForm, notice: SecurityNotice | None, **changes: object) -> NotifyRequest:
    return notify_request(target(form, **changes), TimedNotice(notice, 1.5), "an-id")


def facts(**changes: str) -> SecurityNotice:
    return SecurityNotice(SecurityEvent.BLOCKED_CLIENT, EventFacts(**changes), 1)


def test_ntfy_is_sent_to_the_root_with_its_topic() -> None:
    """As its documentation has it: JSON to the root, the topic a member, a bearer token."""
    found = posted(NotifyForm.NTFY, facts(server="files"))

    assert found.url == "https://push.example/"
    assert found.headers["authorization"] == "Bearer tk_hunter2"
    assert json.loads(found.body) == {
        "topic": "authz",
        "title": SecurityEvent.BLOCKED_CLIENT.value.title,
        "message": "event: blocked_client\nserver: files",
        "priority": 3,
    }


def test_gotify_is_sent_to_its_messages_with_the_applications_token() -> None:
    """As its API has it: /message, X-Gotify-Key, title, message, priority."""
    found = posted(NotifyForm.GOTIFY, facts(server="files"))

    assert found.url == "https://push.example/authz/message"
    assert found.headers["x-gotify-key"] == "tk_hunter2"
    assert json.loads(found.body).keys() == {"title", "message", "priority"}


def test_json_is_the_ecs_document_signed_as_standard_webhooks_has_it() -> None:
    """The key verifies id, time and body; without a key nothing claims to be signed."""
    notice = facts(server="files")
    found = posted(NotifyForm.JSON, notice, signing_key=_KEY)

    assert json.loads(found.body) == ecs_fields(notice, 1.5)
    signed = b"an-id.1." + found.body
    expected = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert found.headers["webhook-signature"] == f"v1,{expected}"
    assert (found.headers["webhook-id"], found.headers["webhook-timestamp"]) == ("an-id", "1")
    assert "webhook-signature" not in posted(NotifyForm.JSON, notice).headers


def test_a_name_cannot_call_a_channel_or_show_a_link_in_a_chat() -> None:
    """`<!channel>`, links, Mattermost's mentions and Markdown stay text in a code span."""
    text = json.loads(posted(NotifyForm.SLACK, facts(client=_EVIL)).body)["text"]

    (line,) = [each for each in text.split("\n") if each.startswith("client: ")]
    assert not set(text) & set("<>")
    assert re.fullmatch(r"client: `[^`\n]*`", line)
    assert "&lt;!channel&gt;" in line


@given(_NOTICES, st.sampled_from(list(NotifyForm)))
def test_a_value_is_printable_ascii_on_its_own_line(
    notice: SecurityNotice, form: NotifyForm
) -> None:
    """No value makes a line, a control character or a direction of writing of its own."""
    found = posted(form, notice, people=True)

    assert found.body.isascii()
    assert len(found.body) < 8192
    if form is not NotifyForm.JSON:
        said = json.loads(found.body)
        text = said.get("message") or said["text"]
        assert all(line.isascii() and line.isprintable() for line in text.split("\n"))
        names = [line.partition(":")[0] for line in text.split("\n")]
        assert len(names) == len(set(names))


@given(st.sampled_from(list(NotifyForm)))
def test_people_are_named_only_where_that_is_asked_for(form: NotifyForm) -> None:
    """Neither the person nor the address is in a message, unless `people` is set."""
    notice = facts(person="subject-of-ada", address="203.0.113.77", client="claude")

    for people in (False, True):
        found = posted(form, notice, people=people)
        assert (b"subject-of-ada" in found.body) is people
        assert (b"203.0.113.77" in found.body) is people
        assert b"hunter2" not in found.body


@given(_notices(_SHOWN), st.floats(0, 1e10))
def test_a_notice_comes_to_another_process_as_it_was(notice: SecurityNotice, at: float) -> None:
    """What is encoded is decoded the same, a test message too."""
    for each in (TimedNotice(notice, at), TimedNotice(None, at)):
        assert TimedNotice.decode(each.encode()) == each


def test_secrets_are_in_no_text() -> None:
    """`repr` of a target and a request show neither URL, token nor key."""
    one = target(NotifyForm.JSON, signing_key=_KEY)
    assert NotifyTarget.of_json(one.to_json()) == one
    shown = repr(one) + repr(notify_request(one, TimedNotice(None, 0.0), "id"))
    assert "push.example" not in shown
    assert "hunter2" not in shown
    assert "whsec_" not in shown


@given(st.builds(EventFacts, *[st.text(min_size=100, max_size=4096)] * 7))
def test_no_value_is_so_long_that_nobody_is_told(facts: EventFacts) -> None:
    """A caller chooses a tool's name; a worker hands its notice over all the same."""
    notice = SecurityNotice(SecurityEvent.SESSION_OF_ANOTHER, facts, 10**6, True, 32)

    handed_over = TimedNotice(notice, 1.5).encode()

    assert len(NOTICE + handed_over) <= LONGEST
    told, kept = TimedNotice.decode(handed_over).notice, asdict(facts)
    assert told is not None
    assert all(kept[name].startswith(value) for name, value in asdict(told.facts).items())
    # Nothing is lost of what is shown of it in any form.
    assert ecs_fields(told, 1.5) == ecs_fields(notice, 1.5)


def test_a_name_in_letters_of_four_bytes_is_told() -> None:
    """As the longest names of MCP and of people may be, each an escape of twelve bytes."""
    longest = "\U0001f600" * 256
    notice = facts(tool=longest, person=longest, client=longest)
    assert len(NOTICE + TimedNotice(notice, 1.5).encode()) <= LONGEST
