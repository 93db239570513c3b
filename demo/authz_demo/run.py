"""`authz demo`: write an environment, run it as `authz up` does, run the scenario in it."""

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
from authz_demo.environment import Environment, Location, free_port, write_environment
from authz_demo.front_door_scenario import require_step_up, run_front_door_scenario
from authz_demo.reporter import WriteLine

DONE: Final = 0
FAILED: Final = 1
_GATEWAY: Final = 8443
_METRICS: Final = 9464


def demo(
    *, once: bool, state: Path | None, port: int | None = None, metrics_port: int | None = None
) -> int:
    """Run the demonstration.

    Args:
        once: whether to end after the scenario.
        state: the folder for its files; None for a temporary one, removed at the end.
        port: of the gateway; None for 8443, or one that is free.
        metrics_port: of the metrics; None for 9464, or one that is free.

    Returns:
        0 where all went as it should, 1 where a step or a part did not.

    Raises:
        OSError: where a port that was asked for is taken.
    """
    gateway, metrics = (
        _port("--port", port, _GATEWAY),
        _port("--metrics-port", metrics_port, _METRICS),
    )
    folder = Path(tempfile.mkdtemp(prefix="authz-demo-")) if state is None else state.absolute()
    try:
        place = Location(folder, "demo.localhost", gateway, metrics, free_port())
        console = Console(sys.stdout)
        try:
            return asyncio.run(
                run(
                    write_environment(place, change=require_step_up, login="front_door"),
                    once=once,
                    say=console.say,
                )
            )
        finally:
            console.close()
    finally:
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)


def _port(option: str, wanted: int | None, default: int) -> int:
    found = free_port(default if wanted is None else wanted)
    if wanted not in (None, found):
        raise OSError(f"{option}: port {wanted} of 127.0.0.1 is taken; give another one")
    return found


async def run(environment: Environment, *, once: bool, say: WriteLine) -> int:
    """Run an environment and the scenario in it; see `demo`."""

    async def when_ready() -> int | None:
        failed = await run_front_door_scenario(environment, say)
        say("")
        if failed:
            say(f"{len(failed)} step(s) went otherwise: {'; '.join(failed)}")
        else:
            say("Every step went as it should.")
        if once or failed:
            return FAILED if failed else DONE
        say(_at_hand(environment))
        return None

    # The SDK writes a traceback where a log-in fails, as one of the scenario shall.
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    settings = load(environment.configuration, os.environ)
    say("authz demo: a real Envoy, a real Valkey, the service, two sample MCP servers, and a")
    say("stand-in for Authelia that is NOT FOR PRODUCTION. Everything is on this machine.")
    return await up(
        settings,
        environment.configuration,
        environment.place.folder / "state",
        os.environ,
        extras=environment.extras,
        when_ready=when_ready,
        patient=False,
        say=say,
    )


def _at_hand(environment: Environment) -> str:
    """Return what a person can try while everything runs."""
    place, john, bob = environment.place, environment.who.john, environment.who.bob
    return f"""
It keeps running until Ctrl-C. To try things:
  gateway    {place.gateway}/notes and /files
  people     john / {john.password} / TOTP secret {john.totp_secret}
             bob / {bob.password} (no TOTP)
  rules      {environment.configuration}   (change them, then: kill -HUP {os.getpid()};
                              {place.folder}/state/log/service.log says what came of it)
  logs       {place.folder}/state/log
  try        curl --cacert {environment.certificates.authority} -i -X POST {place.gateway}/notes

Open in a browser (it has to trust {environment.certificates.authority}):
  {place.gateway}/authz/log-ins   which applications act in john's name, and the end of each
  {place.issuer}/   the log-in service
  http://127.0.0.1:{place.metrics}/metrics   metrics
"""
