"""Delivery: each message ends as sent, failed or dropped, whatever the target does."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import httpcore
import pytest

from authz.notify.delivery import (
    QUEUE,
    Delivery,
    DeliveryAnswer,
    DeliveryOutcome,
    DeliveryTiming,
    attempt,
    notify_client,
)
from authz.notify.messages import NotifyForm, NotifyTarget, TimedNotice
from tests.support.certificates import made
from tests.support.hostile_target import (
    TargetServer,
    cut_off,
    endless_body,
    endless_head,
    garbage,
    hang,
    in_turn,
    status,
    target_server,
)
from tests.support.listening import listening
from tests.support.watched_network import Turns, WatchedNetwork, flood

Answer = Callable[[TargetServer, socket.socket], None]
_NO_AUTHORITY: Final = "the file of its authority cannot be read"
_NOTICE: Final = TimedNotice(None, 1000.0)


class _Run:
    """Deliver to one target, with a clock that pauses move."""

    def __init__(self, url: str, attempt: float = 60.0, authority: str = "") -> None:
        self.ended: list[tuple[DeliveryOutcome, str]] = []
        self.pauses: list[float] = []
        self.now = 1000.0
        timing = DeliveryTiming(lambda: self.now, self._sleep, lambda: 1.0, attempt)
        target = NotifyTarget("hook", NotifyForm.JSON, url, token="hunter2", authority=authority)
        self.delivery = Delivery(target, self._report, timing)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def _report(self, _: str, __: str, outcome: DeliveryOutcome, detail: str) -> None:
        self.ended.append((outcome, detail))

    def deliver(self, count: int = 1) -> None:
        """Deliver so many messages."""

        async def work() -> None:
            running = asyncio.create_task(self.delivery.run())
            for _ in range(count):
                self.delivery.offer(_NOTICE)
            async with asyncio.timeout(120):
                while len(self.ended) < count:  # noqa: ASYNC110 - a thread or a process ends it
                    await asyncio.sleep(0.01)
            self.delivery.stop()
            await running

        asyncio.run(work())


@pytest.mark.attack("hostile-host")
def test_a_target_that_floods_us_holds_no_message_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interim responses without an end are read by the kilobyte, and end before their time."""
    turns = Turns()
    monkeypatch.setattr(httpcore, "AnyIOBackend", partial(WatchedNetwork, turns))

    async def scene() -> DeliveryAnswer:
        other = asyncio.create_task(turns.take())
        async with listening(partial(flood, "interim")) as port:
            target = NotifyTarget("hook", NotifyForm.JSON, f"http://127.0.0.1:{port}/")
            async with notify_client(target) as client:
                found = await attempt(client, target, _NOTICE, "1", 60.0)
        other.cancel()
        return found

    assert asyncio.run(scene()).detail == "its answer is no HTTP, or was cut off"
    assert turns.most <= 1024


def test_a_message_is_tried_again_with_longer_and_longer_pauses() -> None:
    """429, 503 and a closed connection are tried again, as the same delivery; then it is sent."""
    with target_server(in_turn(status(429), status(503), cut_off, status(200))) as server:
        run = _Run(server.url)
        run.deliver()
        assert run.ended == [(DeliveryOutcome.SENT, "status 200")]
        assert run.pauses[:3] == [1.0, 2.0, 4.0]
        assert len(server.posted) == 4
        assert len({each.headers["webhook-id"] for each in server.posted}) == 1


def test_attempts_are_bounded() -> None:
    """A target that never takes it is asked eight times, in two minutes."""
    with target_server(status(500)) as server:
        run = _Run(server.url)
        run.deliver()
        assert run.ended == [(DeliveryOutcome.FAILED, "status 500")]
        assert len(server.posted) == 8
        assert sum(run.pauses) < 200


@pytest.mark.attack("notify-redirect")
def test_a_redirect_is_not_followed() -> None:
    """Neither the message nor the token goes to where a target points."""
    with target_server(status(200)) as other, target_server(status(200)) as server:
        server.answer = status(307, f"location: {other.url}/steal")
        run = _Run(server.url)
        run.deliver()
        assert run.ended == [(DeliveryOutcome.FAILED, "status 307: redirects are not followed")]
        assert other.connections == 0
        assert len(server.posted) == 1


@pytest.mark.attack("notify-hostile-answer")
@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (hang, DeliveryOutcome.FAILED, "no answer in time"),
        (endless_head, DeliveryOutcome.FAILED, "its answer is no HTTP, or was cut off"),
        (endless_body, DeliveryOutcome.SENT, "status 200"),
        (garbage, DeliveryOutcome.FAILED, "its answer is no HTTP, or was cut off"),
        (status(400), DeliveryOutcome.FAILED, "status 400"),
    ],
    ids=["hang", "endless_head", "endless_body", "garbage", "refused"],
)
def test_a_hostile_answer_ends_the_message_and_nothing_else(
    answer: Answer, outcome: DeliveryOutcome, detail: str
) -> None:
    """The next message is tried as well, and no word of ours tells what the target said."""
    attempt = 0.3 if answer is hang else 60.0
    with target_server(answer) as server:
        run = _Run(server.url, attempt)
        run.deliver(2)
        assert run.ended == [(outcome, detail)] * 2


def test_nothing_listens() -> None:
    """A target that is away fails, after its attempts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    run = _Run(f"http://127.0.0.1:{port}")
    run.deliver()
    assert run.ended == [(DeliveryOutcome.FAILED, "it cannot be reached")]


def test_the_queue_is_bounded_and_what_waits_at_the_end_is_dropped() -> None:
    """Of more than the queue holds the last are dropped at once; the others when it ends."""
    run = _Run("http://127.0.0.1:9")
    for _ in range(QUEUE + 3):
        run.delivery.offer(_NOTICE)
    assert run.ended == [(DeliveryOutcome.DROPPED, "too many wait")] * 3
    run.delivery.stop()
    run.delivery.offer(_NOTICE)
    run.delivery.drop()
    assert len(run.ended) == QUEUE + 4
    assert run.delivery.waiting == 0


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    """TLS is verified: by the system's authorities, or by the file that the target names."""
    authority = made(is_authority=True, subject="an authority")
    ours = made("localhost", by=authority)
    (tmp_path / "chain").write_bytes(ours.pem + ours.key_pem)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain")
    with target_server(status(200), context) as server:
        url = f"https://localhost:{server.port}"
        for file, outcome, detail in (
            ("", DeliveryOutcome.FAILED, "its certificate is not trusted, or TLS failed"),
            (str(tmp_path / "ca.pem"), DeliveryOutcome.SENT, "status 200"),
            (str(tmp_path / "gone"), DeliveryOutcome.FAILED, _NO_AUTHORITY),
        ):
            run = _Run(url, authority=file)
            run.deliver()
            assert run.ended == [(outcome, detail)]
        # A name that the certificate does not have.
        run = _Run(f"https://127.0.0.1:{server.port}", authority=str(tmp_path / "ca.pem"))
        run.deliver()
        assert run.ended[0][0] is DeliveryOutcome.FAILED
        assert len(server.posted) == 1
