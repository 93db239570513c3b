"""Count requests whose proxy writes `address:port` into X-Forwarded-For, for `authz doctor`.

Envoy does not read such a value and takes the proxy's own address, so that everybody behind it is
one address in all bounds by address. Nothing is refused here: an RBAC filter with shadow rules
alone counts, and passes every request on.
"""

from typing import Final

from envoy_data_plane.envoy.config.rbac.v3 import Permission, Policy, Principal
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as Rules
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any

# The counter is `http.<listener>.rbac.<this>.shadow_allowed`.
PREFIX: Final = "forwarded_with_port"
# Without counted repetitions: Envoy refuses large programs of RE2 (100 instructions).
_ENTRY: Final = r"([0-9.]+|\[[^,]*\]):[0-9]+"


def forwarded_ports(trusted_hops: int) -> list[HttpFilter]:
    """Return the filter, which stands before the one that strips the header; none without a proxy.

    Args:
        trusted_hops: how many proxies before Envoy are believed. Envoy has added the last one's
            address by then, so that many entries follow the one that it would take.
    """
    if not trusted_hops:
        return []
    regex = rf"(.*,)? *{_ENTRY} *" + ",[^,]*" * trusted_hops
    header = HeaderMatcher(
        name="x-forwarded-for", string_match=StringMatcher(safe_regex=RegexMatcher(regex=regex))
    )
    policy = Policy(permissions=[Permission(header=header)], principals=[Principal(any=True)])
    config = Rbac(
        shadow_rules=Rules(policies={"address-and-port": policy}), shadow_rules_stat_prefix=PREFIX
    )
    return [HttpFilter(name="envoy.filters.http.rbac", typed_config=Any.pack(config))]
