"""The process that sends messages: told by a socket what to send where, it tells how each ended.

It ends when the other end of the socket closes, however that process went: what waits is sent
within a bound, or dropped. Signals of a terminal or a supervisor's group do not reach it before.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

from authz.notify.delivery import Delivery, DeliveryOutcome
from authz.notify.messages import NotifyTarget, TimedNotice

# From the other process: the targets (JSON), a notice for one of them (its name, a line feed, the
# notice), or the end.
TARGETS: Final = b"C"
NOTICE: Final = b"N"
STOP: Final = b"T"
# To it: that this process listens, or how a message ended (JSON).
READY: Final = b"S"
REPORT: Final = b"R"
LONGEST: Final = 128 * 1024  # bytes of one message
DRAIN: Final = 3.0  # seconds in which what waits may be sent at the end


class Sender:
    """Send what the socket says."""

    def __init__(self, ours: socket.socket) -> None:
        """Take the socket, whose other end is this process' owner."""
        self._socket = ours
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[Delivery, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Send until told to stop, or the owner is gone."""
        loop = asyncio.get_running_loop()
        self._send(READY)
        while True:
            try:
                message = await loop.sock_recv(self._socket, LONGEST)
            except OSError:
                message = b""
            if not message or message == STOP:
                break
            self._act(message)
        await self._end(list(self._tasks))

    def _act(self, message: bytes) -> None:
        kind, text = message[:1], message[1:]
        if kind == TARGETS:
            self._configure([NotifyTarget.of_json(each) for each in json.loads(text)])
        elif kind == NOTICE:
            name, _, notice = text.partition(b"\n")
            delivery = self._deliveries.get(name.decode())
            timed = TimedNotice.decode(notice)
            if delivery is None:
                self._report(name.decode(), timed.label, DeliveryOutcome.DROPPED, "no such target")
            else:
                delivery.offer(timed)

    def _configure(self, targets: Sequence[NotifyTarget]) -> None:
        """Send to these targets from now on; what waits for others is still sent."""
        wanted = {each.name: each for each in targets}
        for name, delivery in list(self._deliveries.items()):
            if wanted.get(name) != delivery.target:
                delivery.stop()
                del self._deliveries[name]
        for name, target in wanted.items():
            if name not in self._deliveries:
                delivery = self._deliveries[name] = Delivery(target, self._report)
                task = self._tasks[delivery] = asyncio.create_task(delivery.run())
                task.add_done_callback(partial(self._forget, delivery))

    def _forget(self, ended: Delivery, _: asyncio.Task[None]) -> None:
        del self._tasks[ended]

    async def _end(self, deliveries: Sequence[Delivery]) -> None:
        tasks = list(self._tasks.values())
        for delivery in deliveries:
            delivery.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN)
        for delivery in deliveries:
            delivery.drop()

    def _report(self, target: str, event: str, outcome: DeliveryOutcome, detail: str) -> None:
        said = {"target": target, "event": event, "outcome": outcome.value, "detail": detail}
        self._send(REPORT + json.dumps(said).encode())

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError:  # the owner is gone, or does not read: nobody counts any more
            return


def main(argv: Sequence[str]) -> None:
    """Send; the one argument is the descriptor of the socket."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(argv[0])) as ours:
        ours.setblocking(False)
        try:
            asyncio.run(Sender(ours).run())
        finally:
            ours.close()
            # A look-up of a name may hang in a thread, which Python would wait for.
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
