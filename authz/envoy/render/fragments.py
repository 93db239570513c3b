"""The pieces for people who have an Envoy: filters, clusters and routes.

Law: every piece is the one of the whole configuration. What the surrounding connection manager
must do for them to be safe is said above them.
"""

from typing import Final

import betterproto2

from authz.envoy.render.clusters import ISSUER, PASSWORDS, clusters
from authz.envoy.render.filters import http_filters
from authz.envoy.render.routes import gateway_host
from authz.envoy.render.settings import EnvoySettings, Topology
from authz.envoy.render.text import yaml

_HEADER: Final = """\
Pieces of Envoy's configuration for an Envoy that is there already, from authz.yaml by
`authz envoy-config --fragment`.

http_filters: put them into the HTTP connection manager in this order, before its router filter.
  The first takes X-Forwarded-* and its relatives from every request of that listener; routes of
  yours that need them must add them anew, as virtual_host does.
virtual_host: put it into the route configuration. On every other route of that listener switch
  ext_authz off (ExtAuthzPerRoute.disabled), or authz is asked about it and refuses it.
clusters: put them with the others.

The connection manager must have these settings; with them the address, path and headers that
authz judges are the ones that the servers get:
  use_remote_address: true
  xff_num_trusted_hops: {hops}
  internal_address_config: {{cidr_ranges: [{{address_prefix: 255.255.255.255, prefix_len: 32}}]}}
  normalize_path: true
  merge_slashes: true
  path_with_escaped_slashes_action: REJECT_REQUEST
  common_http_protocol_options: {{headers_with_underscores_action: REJECT_REQUEST}}
and no early filter may change the path or the route (clear_route_cache).
Envoy's own errors (413, 429, 503) become JSON-RPC with the local_reply_config of the whole
configuration (`authz envoy-config`)."""


def text(settings: EnvoySettings, where: Topology) -> str:
    """Return the pieces as YAML."""
    pieces = {
        "http_filters": http_filters(settings)[:-1],
        "virtual_host": gateway_host(settings),
        "clusters": [
            cluster
            for cluster in clusters(settings, where)
            if cluster.name not in {ISSUER, PASSWORDS}
        ],
    }
    return yaml(
        {name: _plain(piece) for name, piece in pieces.items()},
        _HEADER.format(hops=settings.trusted_hops),
    )


def _plain(piece: object) -> object:
    if isinstance(piece, list):
        return [_plain(member) for member in piece]
    assert isinstance(piece, betterproto2.Message)
    return piece.to_dict(casing=betterproto2.Casing.SNAKE)
