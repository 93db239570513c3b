"""Runs of Redis scripts by whoever has a connection's `command`."""

from typing import Any

from authz.ledger.login_records import Command
from authz.ledger.records import ScriptNotLoadedError
from authz.ledger.script import Script


async def run_script(
    command: Command, script: Script, keys: tuple[bytes, ...], *args: bytes | str | int
) -> Any:
    """Run a script and return its answer; it is sent again only where nothing ran.

    Raises:
        UnavailableError: where Redis gave no answer; it may have run.
    """
    call = ("EVALSHA", script.sha, len(keys), *keys, *args)
    try:
        return await command(*call)
    except ScriptNotLoadedError:
        pass
    await command("SCRIPT LOAD", script.source)
    return await command(*call)
