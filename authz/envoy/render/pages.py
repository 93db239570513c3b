"""The way to the pages: the front door's endpoints, and the pages for people.

Law: these paths and no others lead to `authz pages`, without asking authz; an MCP path never does.
A person's cookies go there and nowhere else; who asks and for which host is said by Envoy alone.
"""

from typing import Final

from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteMatch
from envoy_data_plane.google.protobuf import Any

from authz.envoy.render.clusters import PAGES
from authz.envoy.render.filters import BUFFER, CLIENT_ADDRESS, EXT_AUTHZ, buffered, unchecked
from authz.envoy.render.per_address import Traffic, of_kind
from authz.envoy.render.pieces import duration, forwarded
from authz.envoy.render.settings import Authority, FrontDoorPages

REGISTER: Final = "/register"
# What programs call and what people see: the first are answered in JSON, whatever happens.
PROGRAMS: Final = ("/token", "/revoke", REGISTER)
# Those that concern a log-in that was consented to.
_FOR_GRANTS: Final = ("/token", "/revoke")
AUTHORIZE: Final = "/authorize"
PEOPLE: Final = "/authz/"
_TIMEOUT: Final = 60
# What the pages take (authz/login/web/requests.py). Envoy waits for it, so that a body which comes
# slowly takes none of the pages' places.
_LONGEST_BODY: Final = 64 * 1024


def pages_routes(pages: FrontDoorPages, authority: Authority) -> list[Route]:
    """Return the routes of what the front door does: where nobody logs in there, step-ups alone."""
    people = RouteMatch(prefix=PEOPLE)
    if not pages.logs_in:
        return [_route("pages", people, authority)]
    paths = [AUTHORIZE, *PROGRAMS]
    if not pages.registers:
        paths.remove(REGISTER)
    exact = [_route(f"pages:{path[1:]}", RouteMatch(path=path), authority) for path in paths]
    return [*exact, _route("pages", people, authority)]


def _route(name: str, match: RouteMatch, authority: Authority) -> Route:
    """Return one route, for every method: which ones there are is for the pages to say.

    The rate limit per address stays on, and counts a person's pages apart from what clients ask
    for those who have logged in; a client's access token has no business there.
    """
    return Route(
        name=name,
        match=match,
        metadata=of_kind(Traffic.OAUTH if match.path in _FOR_GRANTS else Traffic.PAGE),
        route=RouteAction(cluster=PAGES, timeout=duration(_TIMEOUT)),
        request_headers_to_add=forwarded(authority),
        request_headers_to_remove=["authorization", CLIENT_ADDRESS],
        typed_per_filter_config={
            EXT_AUTHZ: Any.pack(unchecked()),
            BUFFER: Any.pack(buffered(_LONGEST_BODY)),
        },
    )
