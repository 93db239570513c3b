"""The sample server `notes`, which believes the gateway's signature alone; a program of its own.

Arguments: the Unix socket, where the gateway's keys are, its URL, and the server's own.
"""

import sys
from pathlib import Path

from authz.integrations.mcp_identity import Assertions
from authz_demo.samples import app
from authz_demo.serving import Address, serve_forever

if __name__ == "__main__":
    place, keys, gateway, audience = sys.argv[1:]
    verify = Assertions(keys, gateway, audience)
    serve_forever(app("notes", verify=verify), Address(uds=Path(place)))
