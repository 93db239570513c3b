"""Take the cookies of sessions out of the requests for admin pages; keep pages from setting them.

authz is told no cookies (filters.py), so a script writes the one that counts into a header, which a
client's own request has been freed of by then; and no cookie of ours goes on to a page's upstream.
In the upstream's own filter chain another script drops what it would set under our names.

Invariant: a cookie of ours that comes twice, or whose script fails, opens nothing; no upstream sees
one or sets one (tests/envoy/live/test_admin_pages_live.py).
"""

from typing import Final

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua, LuaPerRoute
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any

from authz.core.admin_pages import BROWSER_COOKIE, BROWSER_HEADER, SESSION_COOKIE, SESSION_HEADER
from authz.envoy.render.cookies import EACH_COOKIE, LUA, OURS, PUT_KEPT, TAKE_COOKIES
from authz.envoy.render.messages import http_filter
from authz.envoy.render.proto_json import pack

FILTER: Final = "authz.session_cookie"

# What is sent to no page, and set by none: ours, and Authelia's session, which browsers send to all
# hosts below the domain of its cookie. A name in any case, and whatever begins like it.
_OTHERS: Final = "authelia_session"
_KEPT_BACK: Final = f"""\
local function is_kept_back(cookie)
  local name = cookie:sub(1, 32):lower()
  return name:find("{OURS.lower()}", 1, true) == 1 or name:find("{_OTHERS}", 1, true) == 1
end
"""

_OF_REQUEST: Final = f"""\
local TOLD = {{["%s"] = "%s", ["%s"] = "%s"}}
function envoy_on_request(handle)
  local headers, sent, kept, found = handle:headers(), {{}}, {{}}, {{}}
{TAKE_COOKIES}  for _, header in pairs(TOLD) do
    headers:remove(header)
  end
{EACH_COOKIE}    local equals = cookie:find("=", 1, true)
    local header = equals and TOLD[cookie:sub(1, equals - 1)]
    if header then
      -- One that comes twice is nobody's: whose it is cannot be told.
      found[header] = found[header] == nil and cookie:sub(equals + 1) or false
    end
    if cookie ~= "" and not is_kept_back(cookie) then
      kept[#kept + 1] = cookie
    end
  end
  for header, value in pairs(found) do
    if value and #value <= 128 and not value:find("[^%%w_-]") then
      headers:add(header, value)
    end
  end
{PUT_KEPT}"""
_REQUEST: Final = _KEPT_BACK + _OF_REQUEST % (
    SESSION_COOKIE, SESSION_HEADER, BROWSER_COOKIE, BROWSER_HEADER,
)  # fmt: skip

_RESPONSE: Final = (
    _KEPT_BACK
    + """\
function envoy_on_response(handle)
  local headers, kept = handle:headers(), {}
  for at = 0, headers:getNumValues("set-cookie") - 1 do
    local cookie = headers:getAtIndex("set-cookie", at)
    -- Of a cookie without a name (`=NAME=VALUE`) browsers send what follows the first sign.
    if not is_kept_back(cookie:sub(cookie:find("[^ \t=]") or 1)) then
      kept[#kept + 1] = cookie
    end
  end
  headers:remove("set-cookie")
  for _, cookie in ipairs(kept) do
    headers:add("set-cookie", cookie)
  end
end
"""
)


def session_cookie() -> HttpFilter:
    """Return the filter, which acts on the routes of pages alone and stands before ext_authz."""
    # The route that the other filters have judged is the one that is taken.
    return HttpFilter(name=FILTER, typed_config=pack(Lua(clear_route_cache=False)), disabled=True)


def taken_out() -> dict[str, Any]:
    """Return the settings of a route to a page."""
    return {FILTER: pack(LuaPerRoute(source_code=DataSource(inline_string=_REQUEST)))}


def page_upstream_filters() -> tuple[HttpFilter, ...]:
    """Return the filters of the responses of a page's upstream, as they come in."""
    script = Lua(default_source_code=DataSource(inline_string=_RESPONSE), clear_route_cache=False)
    return (
        http_filter(LUA, script),
        http_filter("envoy.filters.http.upstream_codec", UpstreamCodec()),
    )
