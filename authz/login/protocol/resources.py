"""What a log-in may be for: our servers, with the scopes and factors that their rules name.

Invariant: a resource is one of our servers' canonical URLs or it is refused; nobody is given a
scope that the server and its tools do not name, nor one beyond what its client may ask for. What
is asked for besides is ignored (RFC 6749, section 3.3): clients ask for what they find in metadata
of other servers, or are used to (`claudeai`, `email`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from authz.core.policy import OperationKind, Policy, Rule, Server
from authz.core.principal import names_resource
from authz.login.protocol.values import OAuthClient, OAuthError

# Clients ask for these as they are used to; they are for Authelia, and asked there in any case.
TOLERATED: Final = frozenset({"openid", "offline_access"})
# Without `profile` the ID token does not say what the person is called.
_IDENTITY: Final = frozenset({"openid", "profile"})
_LISTED: Final = 6  # servers in an error description
# Of one request; a form has a bounded number of fields. With more, none can be left out.
MOST_OPTIONAL: Final = 100


@dataclass(frozen=True, slots=True)
class OpenedOperations:
    """Name operations that a scope is needed for: those of a kind that match a pattern."""

    kind: OperationKind
    pattern: str


@dataclass(frozen=True, slots=True)
class ResourceServer:
    """Hold what the front door needs to know of one server.

    Attributes:
        name: in authz.yaml.
        resource: its canonical URL.
        own: the scopes that every request to it needs.
        scopes: these and its tools'.
        two_factor: whether it or one of its tools wants a second factor.
        groups: whether it or one of its tools asks who the person is.
        identity: the scopes by which the ID token says who it is.
        opens: by scope, the operations whose rules ask for it.
    """

    name: str
    resource: str
    own: frozenset[str]
    scopes: frozenset[str]
    two_factor: bool
    groups: bool
    identity: frozenset[str] = _IDENTITY
    opens: Mapping[str, tuple[OpenedOperations, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @property
    def needed(self) -> frozenset[str]:
        """Return what every request to it needs, and what Authelia is asked for in any case."""
        return self.own | self._always

    def optional(self, scopes: frozenset[str]) -> frozenset[str]:
        """Return those of the scopes that a person may leave out of a consent.

        With too many for a form there are none.
        """
        found = scopes - self.needed
        return found if len(found) <= MOST_OPTIONAL else frozenset()

    def upstream(self, granted: frozenset[str], *, offline: bool) -> frozenset[str]:
        """Return the scopes to ask Authelia for; `offline` for a refresh token."""
        offline_access = frozenset({"offline_access"}) if offline else frozenset[str]()
        return self._always | offline_access | granted

    @property
    def _always(self) -> frozenset[str]:
        """Return the scopes that every token for it has, whatever is consented to."""
        return self.identity | (frozenset({"groups"}) if self.groups else frozenset())

    def grantable(self, asked: Iterable[str], client: OAuthClient, name: str) -> frozenset[str]:
        """Return the scopes that a person may be asked to consent to.

        They are what the client asks for, as far as the server and its tools have it and the client
        may; where nothing is left, the server's own scopes, as far as the client may. What every
        token has is among them where a rule makes a permission of it: the person is to see it.

        Args:
            asked: of `read_scopes`.
            client: who asks; its `scopes` are what it may ask for at most.
            name: what rules call it.

        Raises:
            OAuthError: `invalid_scope`, where the client may have none of the server's own scopes
                and asks for none that it may have: no log-in of it could use the server.
        """
        granted = client.allowed((frozenset(asked) - TOLERATED) & self.scopes)
        granted = granted or client.allowed(self.own & self.scopes)
        if self.own and not granted:
            raise OAuthError(
                "invalid_scope",
                f"the server {self.name} needs {' '.join(sorted(self.own))}, which the operator "
                f"does not let the client {name} have",
                server=self.name,
                scopes=self.own,
            )
        return granted | client.allowed(self._always & self.scopes)


class ResourceServers:
    """Find servers by what requests call them."""

    def __init__(self, policy: Policy, identity: frozenset[str] = _IDENTITY) -> None:
        """Take the servers of a policy, and the scopes by which the ID token says who it is."""
        # A limit of every request that reads groups needs them at every server.
        groups = any(limit.reads_groups for limit in policy.limits)
        self._targets = {
            name: _target(server, identity, groups=groups)
            for name, server in policy.servers.items()
        }

    @property
    def scopes(self) -> frozenset[str]:
        """Return every scope that any server names."""
        return frozenset[str]().union(*(target.scopes for target in self._targets.values()))

    def named(self, name: str, resource: str) -> ResourceServer | None:
        """Return the server that still has both name and URL."""
        target = self._targets.get(name)
        return target if target is not None and target.resource == resource else None

    def find(self, resources: Sequence[str]) -> ResourceServer:
        """Return the one server that a request names (RFC 8707); the only one where it names none.

        Raises:
            OAuthError: `invalid_target`.
        """
        targets = tuple(self._targets.values())
        if not resources and len(targets) == 1:
            return targets[0]
        found = [target for target in targets if names_resource(tuple(resources), target.resource)]
        # A token for two servers could be replayed by one of them at the other.
        others = set(resources) - {
            form for target in found for form in (target.resource, f"{target.resource}/")
        }
        if len(found) != 1 or others:
            problem = "resource has to be" if resources else "resource is missing; it has to be"
            raise OAuthError(
                "invalid_target", f"{problem} the URL of one server here: {self._listed()}"
            )
        return found[0]

    def _listed(self) -> str:
        """Return the servers' URLs, a few of them, for whoever set a client up.

        They are no secret: each has a metadata document that is open to everybody.
        """
        urls = sorted(target.resource for target in self._targets.values())
        more = len(urls) - _LISTED
        return " or ".join(urls[:_LISTED]) + (f" (and {more} more)" if more > 0 else "")


def read_scopes(text: str | None) -> frozenset[str]:
    """Return the scopes of a `scope` parameter (RFC 6749, section 3.3), however they are blanked.

    Only U+0020 stands between two. What is no scope by its characters equals none that a server
    has, so it is ignored as any other that nobody has.
    """
    return frozenset((text or "").split(" ")) - {""}


def identity_scopes(*, email: bool) -> frozenset[str]:
    """Return the scopes by which Authelia's ID token says who a person is."""
    return _IDENTITY | {"email"} if email else _IDENTITY


def _target(server: Server, identity: frozenset[str], *, groups: bool) -> ResourceServer:
    rules = [target.rule for target in server.targets()]
    return ResourceServer(
        name=server.name,
        resource=server.resource,
        own=server.rule.scopes,
        scopes=server.named_scopes,
        two_factor=any(rule.second_factor is not None for rule in rules),
        groups=groups or any(_reads_groups(rule) for rule in rules),
        identity=identity,
        opens=_opened(server),
    )


def _reads_groups(rule: Rule) -> bool:
    return rule.groups is not None or any(limit.reads_groups for limit in rule.limits)


def _opened(server: Server) -> Mapping[str, tuple[OpenedOperations, ...]]:
    found = dict[str, list[OpenedOperations]]()
    for target in server.targets():
        if target.kind is None or target.pattern is None:
            continue
        operations = OpenedOperations(target.kind, target.pattern)
        for scope in target.rule.scopes:
            known = found.setdefault(scope, [])
            if operations not in known:
                known.append(operations)
    return MappingProxyType({scope: tuple(each) for scope, each in found.items()})
