"""One client as a process: commands and results are lines of JSON, and its person has a browser.

A client that opens a browser itself finds one that writes the URL into a file; one that leaves
that to its application prints `{"open": URL}` and reads the URL where the log-in ended. Both come
to the same person.
"""

import asyncio
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from authz_demo.login_drivers import FormDriver, LoginFailedError
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser

_BROWSER: Final = '#!/bin/sh\nprintf "%s\\n" "$1" >> "$AUTHZ_OPENED"\n'
PATIENCE: Final = 120.0


class HangingError(Exception):
    """Say that a client gave no answer in time."""


@dataclass(slots=True)
class Driver:
    """Run one client and its person.

    Attributes:
        command: the client's program and the JSON that it is told.
        env: what its environment has besides.
        folder: of its own: its home, its browser, what it says on stderr.
        person: who uses it.
        network: how the person's browser reaches the whole.
        opened: the URLs that it sent its person to.
        pages: what its person read at the end of each visit.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    person: BrowserUser
    network: LoopbackNetwork
    opened: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _lines: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    _read: int = 0

    def start(self) -> None:
        """Begin the client with a home of its own."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        (self.folder / "opened").touch()
        for name in ("xdg-open", "browser"):
            (programs / name).write_text(_BROWSER)
            (programs / name).chmod(0o755)
        env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "BROWSER": str(programs / "browser"),
            "AUTHZ_OPENED": str(self.folder / "opened"),
            "LANG": "C.UTF-8",
            **self.env,
        }
        with (self.folder / "stderr").open("ab") as stderr:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=env,
                start_new_session=True,
            )
        threading.Thread(target=self._read_lines, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """End it, and whatever it started."""
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def do(self, command: str, patience: float = PATIENCE, **more: Any) -> dict[str, Any]:
        """Give a command; return its result.

        Raises:
            HangingError: where it does not answer; it is ended then.
        """
        if self._process is None:
            self.start()
        self._send({"do": command, **more})
        end = time.monotonic() + patience
        while True:
            self._open_what_it_opened()
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() > end:
                    self.stop()
                    raise HangingError(f"no answer within {patience:.0f} s") from None
                continue
            if "open" in line:
                self._write(self._log_in(line["open"]))
            elif "visit" in line:
                self.visit(line["visit"])
                self._write("done")
            elif "result" in line:
                result: dict[str, Any] = line["result"]
                return result
            elif "gone" in line:
                self.stop()
                raise HangingError("the client's process ended")

    def visit(self, url: str) -> None:
        """Let the person open a page of the gateway and do what it asks for."""
        try:
            self.pages.append(asyncio.run(self._visit(url)))
        except LoginFailedError as error:
            self.pages.append(str(error))

    async def _visit(self, url: str) -> str:
        async with self.network.browser() as browser:
            return (await self.person.visit(browser, url, FormDriver())).text

    def _open_what_it_opened(self) -> None:
        """Do what the person does who sees a browser window open."""
        lines = (self.folder / "opened").read_text("utf-8").splitlines()
        new, self._read = lines[self._read :], len(lines)
        for url in new:
            came = self._log_in(url)
            if came.startswith("http://"):
                try:
                    httpx.get(came, trust_env=False, timeout=60)
                except httpx.HTTPError as error:
                    self.pages.append(f"the client's own callback: {error!r}")

    def _log_in(self, url: str) -> str:
        self.opened.append(url)
        try:
            return asyncio.run(self._log_in_there(url))
        except LoginFailedError as error:
            self.pages.append(str(error))
            return f"http://localhost/?error=log_in_failed&error_description={error}"

    async def _log_in_there(self, url: str) -> str:
        async with self.network.browser() as browser:
            return await self.person.log_in(browser, url, FormDriver())

    def _send(self, command: Mapping[str, Any]) -> None:
        self._write(json.dumps(command))

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._lines.put({"gone": True})

    def _read_lines(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if process is self._process and isinstance(said, dict):
                self._lines.put(said)
        if process is self._process:
            self._lines.put({"gone": True})
