"""The owner of the process that sends: it hands notices over, and counts how each ends.

Invariant: whoever tells a security event waits for nothing; each notice for each target ends in
`authz_notifications_total`, also where the sending process dies (tests/notify/test_notifier.py).
"""

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final

from authz.notify.delivery import DeliveryOutcome
from authz.notify.messages import NotifyTarget, TimedNotice
from authz.notify.sender import DRAIN, LONGEST, NOTICE, READY, REPORT, STOP, TARGETS
from authz.process.child import ChildProcess
from authz.process.supervisor import Backoff, Failure, ProcessSupervisor, StartError
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent, SecurityNotice

_WAITING: Final = 64  # notices that wait for the sending process to start
_START: Final = 60.0
_STOP: Final = DRAIN + 2.0
# What the child gets of our environment, which may hold secrets of the service.
_PLAIN: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_BACKOFF: Final = Backoff()
_LEFT_OUT: Final = "notify: this target is told no more"


class _Sending(ProcessSupervisor):
    """Supervise the process that sends."""

    def __init__(
        self, python: str, env: Mapping[str, str], recorder: Recorder, backoff: Backoff
    ) -> None:
        super().__init__(backoff, _STOP)
        self._python = python
        self._env = {name: env[name] for name in _PLAIN if name in env}
        self._recorder = recorder
        self._ours: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self._reading = False
        self._targets = b""
        self._waiting: deque[bytes] = deque()
        self._open = 0  # notices that the process has and has not reported

    @property
    def pid(self) -> int | None:
        """Return its process id, where it runs."""
        return None if self._process is None else self._process.pid

    def configure(self, targets: Sequence[NotifyTarget]) -> None:
        """Send to these targets from now on."""
        self._targets = TARGETS + json.dumps([each.to_json() for each in targets]).encode()
        if self._reading:
            self._hand_over(self._targets)

    def offer(self, target: str, timed: TimedNotice) -> None:
        """Hand a notice over; where that is not possible, it is dropped."""
        message = NOTICE + target.encode() + b"\n" + timed.encode()
        if not self._reading and len(self._waiting) < _WAITING and not self.is_stopping:
            self._waiting.append(message)
        elif self._reading and self._hand_over(message):
            self._open += 1
        else:
            self.count(DeliveryOutcome.DROPPED, target, timed.label, "too many wait")

    def count(
        self, outcome: DeliveryOutcome, target: str, event: str, detail: str, number: int = 1
    ) -> None:
        """Count how notices ended, and log what was not sent."""
        self._recorder.metrics.notifications.labels(outcome.value).inc(number)
        if outcome in {DeliveryOutcome.FAILED, DeliveryOutcome.DROPPED}:
            self._recorder.event(
                "notification_lost",
                target=target,
                about=event,
                outcome=outcome.value,
                detail=detail,
                notices=number,
            )

    def _launch(self) -> ChildProcess:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        # -P: a file in the working folder must not stand in for a module of ours.
        command = (self._python, "-P", "-m", "authz.notify.sender", str(self._theirs.fileno()))
        try:
            return ChildProcess(command, self._env, pass_fds=(self._theirs.fileno(),))
        except OSError as error:
            self._close()
            raise StartError(f"it cannot be run: {error.strerror}") from error

    async def _until_ready(self, _: ChildProcess, /) -> None:
        assert self._ours is not None
        assert self._theirs is not None
        self._theirs.close()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_START):
                said = await loop.sock_recv(self._ours, LONGEST)
        except (TimeoutError, OSError):
            said = b""
        if said != READY:
            raise StartError("it did not start")
        self._reading = True
        loop.add_reader(self._ours, self._on_message)
        self._hand_over(self._targets)
        while self._waiting and self._hand_over(self._waiting[0]):
            self._waiting.popleft()
            self._open += 1

    async def _ask_to_stop(self, _: ChildProcess, /) -> None:
        self._hand_over(STOP)

    async def _on_end(self) -> None:
        if self._ours is not None:
            while self._receive():
                pass
        self._close()
        if self._open:
            left, self._open = self._open, 0
            self.count(DeliveryOutcome.DROPPED, "", "", "the sending process ended", left)

    def drop_waiting(self) -> None:
        """Count what was never handed over."""
        if self._waiting:
            left = len(self._waiting)
            self._waiting.clear()
            self.count(DeliveryOutcome.DROPPED, "", "", "the sending process did not run", left)

    def _on_failure(self, failure: Failure) -> None:
        why = str(failure.error) if failure.error is not None else f"exit status {failure.status}"
        self._recorder.event("notifier_ended", why=why, pause=failure.pause)

    def _close(self) -> None:
        if self._ours is not None:
            if self._reading:
                asyncio.get_running_loop().remove_reader(self._ours)
            self._ours.close()
        if self._theirs is not None:
            self._theirs.close()
        self._ours, self._reading = None, False

    def _hand_over(self, message: bytes) -> bool:
        if self._ours is None:
            return False
        try:
            return self._ours.send(message) == len(message)
        except OSError:  # its queue is full, or it is gone
            return False

    def _on_message(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        """Take one report; tell whether there may be more."""
        assert self._ours is not None
        try:
            message = self._ours.recv(LONGEST)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        except OSError:
            message = b""
        if not message:
            if self._reading:
                asyncio.get_running_loop().remove_reader(self._ours)
                self._reading = False
            return False
        if message[:1] == REPORT:
            said = json.loads(message[1:])
            self._open -= 1
            outcome = DeliveryOutcome(said["outcome"])
            self.count(outcome, said["target"], said["event"], said["detail"])
        return True


class Notifier:
    """Have people told of security events, by the targets of one configuration after the other."""

    def __init__(
        self,
        python: str,
        env: Mapping[str, str],
        recorder: Recorder,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """Take what is needed; no process runs before there is a target.

        Args:
            python: the interpreter; a service embedded in an Envoy has none to ask.
            env: the environment, of which the process gets what is no secret.
            recorder: counts and logs.
            clock: monotonic seconds.
            backoff: when a process that died is started again.
        """
        self._python = python
        self._env = env
        self._recorder = recorder
        self._clock = clock
        self._backoff = backoff
        self._targets: tuple[NotifyTarget, ...] = ()
        self._sending: _Sending | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._windows: dict[SecurityEvent, tuple[float, int]] = {}

    @property
    def pid(self) -> int | None:
        """Return the id of the process that sends, where it runs."""
        return None if self._sending is None else self._sending.pid

    def configure(self, targets: Sequence[NotifyTarget]) -> None:
        """Tell these targets from now on; without any there is no process.

        One that is left out is told that: whoever changes authz.yaml must not silence it unheard.
        """
        if tuple(targets) == self._targets:
            return
        self._tell_left_out({each.url for each in targets})
        self._targets = tuple(targets)
        if not targets:
            self._end_sending()
            return
        if self._sending is None:
            self._sending = _Sending(self._python, self._env, self._recorder, self._backoff)
            self._sending.configure(targets)
            self._keep(asyncio.create_task(self._sending.run(), name="notifier"))
        else:
            self._sending.configure(targets)

    def offer(self, notice: SecurityNotice) -> None:
        """Have the targets told that want it; several workers may have seen one burst."""
        wanting = [each for each in self._targets if notice.event.label in each.events]
        if self._sending is None or not wanting:
            return
        if self._is_beyond(notice.event):
            label = notice.event.label
            self._sending.count(DeliveryOutcome.SUPPRESSED, "", label, "", len(wanting))
            return
        timed = TimedNotice(notice, time.time())
        for target in wanting:
            self._sending.offer(target.name, timed)

    def _is_beyond(self, event: SecurityEvent) -> bool:
        """Tell whether more notices of an event came than one process tells in its window."""
        row, now = event.value, self._clock()
        began, count = self._windows.get(event, (now, 0))
        if now - began >= row.window:
            began, count = now, 0
        self._windows[event] = began, count + 1
        return count > row.lines  # those of the threshold, and the one that ends a window

    def _tell_left_out(self, urls: AbstractSet[str]) -> None:
        event = SecurityEvent.CONFIGURATION_CHANGED
        for target in self._targets:
            if target.url not in urls and event.label in target.events and self._sending:
                notice = SecurityNotice(event, EventFacts(reason=_LEFT_OUT), 1)
                self._sending.offer(target.name, TimedNotice(notice, time.time()))

    def _end_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            self._keep(asyncio.create_task(self._stop(sending)))

    async def _stop(self, sending: _Sending) -> None:
        await sending.stop()
        sending.drop_waiting()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Have what waits sent within a bound, or counted as dropped."""
        self._targets = ()
        sending, self._sending = self._sending, None
        if sending is not None:
            await self._stop(sending)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP)
            for task in late:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*late, return_exceptions=True)
