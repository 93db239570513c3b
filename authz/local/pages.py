"""The front door and the step-up as a part: `authz pages` behind a Unix socket.

Law: as of the service; only Envoy is told the socket.
"""

import sys
from pathlib import Path
from typing import Final

from authz.local import probe
from authz.local.state import State
from authz.process.service import ServiceSpec

PAGES: Final = "pages"


def pages(state: State, configuration: Path, env: dict[str, str]) -> ServiceSpec:
    """Return the pages as a part.

    Args:
        state: the state folder, held; the pages are served on its socket `pages`.
        configuration: authz.yaml.
        env: its environment, the service's own: it needs the same Redis and secrets.
    """
    socket = state.socket(PAGES)

    async def ready() -> bool:
        await probe.connects(socket)
        return True

    command = (sys.executable, "-P", "-m", "authz", "pages")  # -P: as of the service
    argv = (*command, "-c", str(configuration), "--listen", f"unix:{socket}")
    return ServiceSpec(PAGES, argv, env, ready, echo=str)
