"""A client in a process of its own, and its person: it asks by lines of JSON.

The child is told what an application is told, and gets from its person what a browser brings: the
URL that a log-in ended at.
"""

import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from authz_demo.login_drivers import press
from authz_demo.person import BrowserUser
from tests.support.door import Door

_PATIENCE = 90


@dataclass(slots=True)
class Foreign:
    """Run one client to its end.

    Attributes:
        door: where it comes.
        person: who uses it.
        ends: the pages that the person's visits ended at.
    """

    door: Door
    person: BrowserUser
    ends: list[httpx.Response] = field(default_factory=list)

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return its last line."""
        return asyncio.run(self._run(command, env))

    async def _run(self, command: Sequence[str], env: Mapping[str, str] | None) -> dict[str, Any]:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, limit=1 << 20
        )
        try:
            async with asyncio.timeout(_PATIENCE), self.door.network().browser() as browser:
                return await self._answer(child, browser)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def _answer(
        self, child: asyncio.subprocess.Process, browser: httpx.AsyncClient
    ) -> dict[str, Any]:
        portal = self.door.running.environment.issuer.portal
        assert child.stdout is not None
        assert child.stdin is not None
        async for line in child.stdout:
            said: dict[str, Any] = json.loads(line)
            if "open" in said:
                answer = await self.person.log_in(browser, said["open"], portal)
            elif "visit" in said:
                end = await self.person.visit(browser, said["visit"], portal)
                # A call that waits for an approval, and is shown.
                if 'id="decision"' in end.text:
                    end = await press(browser, end, "approve")
                self.ends.append(end)
                answer = "done"
            else:
                return said
            child.stdin.write(f"{answer}\n".encode())
            await child.stdin.drain()
        raise AssertionError("it ended without a word")
