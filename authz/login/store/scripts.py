"""The Redis scripts of the log-in, each atomic: it checks before it writes.

All keys of one call are of one deployment, so of one slot.
"""

from importlib.resources import files
from typing import Any, Final

from authz.ledger.login_records import Command
from authz.ledger.records import ScriptNotLoadedError
from authz.ledger.script import Script


def _script(name: str) -> Script:
    return Script(files("authz.login.store").joinpath("lua", f"{name}.lua").read_text("ascii"))


TAKE_CODE: Final = _script("take_code")
BEGIN: Final = _script("begin_grant")
RENEW: Final = _script("renew_grant")
END: Final = _script("end_grant")
UNLOCK: Final = _script("unlock")


async def run(
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
