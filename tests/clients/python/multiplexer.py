"""Several MCP servers behind one URL: what docs/decisions/0022 was tried with.

python multiplexer.py server NAME PORT    one server
python multiplexer.py house PORT A B      both under one URL, tools as a_… and b_…
"""

import json
import sys

from fastmcp import FastMCP
from fastmcp.server import create_proxy
from fastmcp.server.dependencies import get_http_headers


def server(name: str) -> FastMCP:
    mcp = FastMCP(name)

    @mcp.tool
    def read() -> str:
        """Tell what arrived."""
        headers = get_http_headers(include_all=True)
        return json.dumps({"server": name, "headers": headers})

    @mcp.tool
    def delete() -> str:
        """Delete."""
        return f"{name} deleted it"

    return mcp


def house(one: str, other: str) -> FastMCP:
    mcp = FastMCP("house")
    mcp.mount(create_proxy(f"http://127.0.0.1:{one}/files"), namespace="a")
    mcp.mount(create_proxy(f"http://127.0.0.1:{other}/files"), namespace="b")
    return mcp


if __name__ == "__main__":
    if sys.argv[1] == "server":
        made, port = server(sys.argv[2]), sys.argv[3]
    else:
        made, port = house(*sys.argv[3:]), sys.argv[2]
    made.run(
        transport="http",
        host="127.0.0.1",
        port=int(port),
        path="/files",
        show_banner=False,
        log_level="CRITICAL",
    )
