"""Keep the cookies of our pages and of the issuer's portal apart, where both have one host.

A browser keeps cookies by host and sends them to every path and port of it: the issuer's session
cookie has `Path=/`, and the prefix `__Host-` of ours demands that path (RFC 6265bis, section
4.1.3.2). So Envoy takes out of each request what is not for where it goes. Authelia besides reads
4 KiB of headers, and would answer 431 to a browser with two log-ins under way.

Invariant: where Envoy serves the portal, no cookie of the one reaches the other, and none an MCP
server, whatever a browser sends (tests/envoy/live/test_one_name_live.py).
"""

from typing import Final

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua, LuaPerRoute
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any

from authz.envoy.render.proto_json import pack
from authz.envoy.render.settings import EnvoySettings

LUA: Final = "envoy.filters.http.lua"
# What every cookie of the pages begins with (authz/login/web/cookies.py).
OURS: Final = "__Host-authz-"

# Lua of a script on requests, which has `headers` and a table `sent`, and fills `kept`. The header
# is gone before its values are looked at: where the script fails, no cookie goes on.
TAKE_COOKIES: Final = """\
  for at = 0, headers:getNumValues("cookie") - 1 do
    sent[at + 1] = headers:getAtIndex("cookie", at)
  end
  headers:remove("cookie")
"""
EACH_COOKIE: Final = """\
  for each in table.concat(sent, ";"):gmatch("[^;]+") do
    -- No pattern for blanks at the end: it would look at each run of blanks again and again.
    local first, last = each:find("[^ \t]") or 1, #each
    while last >= first and (each:byte(last) == 32 or each:byte(last) == 9) do
      last = last - 1
    end
    local cookie = each:sub(first, last)
"""
PUT_KEPT: Final = """\
  if #kept > 0 then
    headers:add("cookie", table.concat(kept, "; "))
  end
end
"""
_SCRIPT: Final = f"""\
local OURS, KEEPS_OURS = "%s", %s
function envoy_on_request(handle)
  local headers, sent, kept = handle:headers(), {{}}, {{}}
{TAKE_COOKIES}{EACH_COOKIE}    local is_ours = cookie:sub(1, #OURS):lower() == OURS:lower()
    if cookie ~= "" and is_ours == KEEPS_OURS then
      kept[#kept + 1] = cookie
    end
  end
{PUT_KEPT}"""


def shares_host(settings: EnvoySettings) -> bool:
    """Tell whether the portal has the gateway's host, on whatever port."""
    return settings.portal is not None and settings.portal.shares_host


def apart_cookies() -> HttpFilter:
    """Return the filter, which acts only on routes that say which cookies are theirs."""
    # The route that the other filters have judged is the one that is taken.
    config = Lua(clear_route_cache=False)
    return HttpFilter(name=LUA, typed_config=pack(config), disabled=True)


def only_ours() -> dict[str, Any]:
    """Return the settings of a route to the pages."""
    return _keeping(ours=True)


def all_but_ours() -> dict[str, Any]:
    """Return the settings of a route to the portal."""
    return _keeping(ours=False)


def _keeping(*, ours: bool) -> dict[str, Any]:
    script = _SCRIPT % (OURS, "true" if ours else "false")
    source = DataSource(inline_string=script)
    return {LUA: pack(LuaPerRoute(source_code=source))}
