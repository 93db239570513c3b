"""`authz demo`: write a scene, run it with the pieces of `authz up`, walk through it.

Law: the exit status is 0 only where every step went as it should.
"""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from authz.config.load import load
from authz.local.up import up
from authz.process.output import Console
from authz_demo.front_walk import ask_anew, front_walk
from authz_demo.scene import Place, Scene, free_port, write
from authz_demo.trail import Say

DONE: Final = 0
FAILED: Final = 1
_GATEWAY: Final = 8443
_METRICS: Final = 9464


def demo(*, once: bool, state: Path | None) -> int:
    """Run the demonstration.

    Args:
        once: whether to end after the walk.
        state: the folder for its files; None for a temporary one, removed at the end.

    Returns:
        0 where all went as it should, 1 where a step or a part did not.
    """
    folder = Path(tempfile.mkdtemp(prefix="authz-demo-")) if state is None else state.absolute()
    try:
        place = Place(
            folder, "demo.localhost", free_port(_GATEWAY), free_port(_METRICS), free_port()
        )
        console = Console(sys.stdout)
        try:
            return asyncio.run(
                run(write(place, change=ask_anew, login="front_door"), once=once, say=console.say)
            )
        finally:
            console.close()
    finally:
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)


async def run(scene: Scene, *, once: bool, say: Say) -> int:
    """Run a scene and walk through it; see `demo`."""

    async def when_ready() -> int | None:
        failed = await front_walk(scene, say)
        say("")
        if failed:
            say(f"{len(failed)} step(s) went otherwise: {'; '.join(failed)}")
        else:
            say("Every step went as it should.")
        if once or failed:
            return FAILED if failed else DONE
        say(_at_hand(scene))
        return None

    # The SDK writes a traceback where a log-in fails, as one of the walk shall.
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    settings = load(scene.configuration, os.environ)
    say("authz demo: a real Envoy, a real Valkey, the service, two sample MCP servers, and a")
    say("stand-in for Authelia that is NOT FOR PRODUCTION. Everything is on this machine.")
    return await up(
        settings,
        scene.configuration,
        scene.place.folder / "state",
        os.environ,
        extras=scene.extras,
        when_ready=when_ready,
        patient=False,
        say=say,
    )


def _at_hand(scene: Scene) -> str:
    """Return what a person can try while everything runs."""
    place, john, bob = scene.place, scene.who.john, scene.who.bob
    return f"""
It keeps running until Ctrl-C. To try things:
  gateway    {place.gateway}/notes and /files   (trust {scene.certificates.authority})
  log-in     {place.issuer}   john / {john.password} / TOTP secret {john.totp_secret}
                              bob / {bob.password} (no TOTP)
  metrics    http://127.0.0.1:{place.metrics}/metrics
  rules      {scene.configuration}   (change them, then: kill -HUP {os.getpid()};
                              {place.folder}/state/log/service.log says what came of it)
  logs       {place.folder}/state/log
  try        curl --cacert {scene.certificates.authority} -i -X POST {place.gateway}/notes
"""
