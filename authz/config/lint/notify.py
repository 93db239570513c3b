"""Lint the targets that people are told by: which values go together, and where a URL may lead."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from authz.config import urls
from authz.config.model import Config, NotifyTargetConfig
from authz.config.problems import Fault, Path, error

_MAX_TARGETS: Final = 8
_TOKEN: Final = frozenset({"ntfy", "gotify", "json"})
# What else such a host may be: the address of a cloud machine's own credentials.
_NO_PLACE: Final = "is no address of a service: link-local, multicast or unspecified"


class HostFault(NamedTuple):
    """Say what is wrong with where a URL leads, without the URL, which may be a secret."""

    wrong: str
    right: str


def target_fault(url: str, gateway: str) -> HostFault | None:
    """Return what is wrong with where messages go; None where nothing is.

    Args:
        url: of one of the shapes that `notify` takes.
        gateway: `gateway.url`.
    """
    parts, ours = urls.split(url), urls.split(gateway)
    host = parts.host.strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        inside = "." not in host or host == "localhost" or host.endswith((".internal", ".local"))
    else:
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            return HostFault(f"its host {_NO_PLACE}", "write the host of the service")
        inside = address.is_private or address.is_loopback
    if (parts.host, parts.port) == (ours.host, ours.port):
        return HostFault("it is the gateway itself", "write the URL of the service that tells you")
    if parts.scheme == "http" and not inside:
        return HostFault(
            "messages would cross the network unprotected",
            "write https://; http:// is for a host of this machine or of a private network",
        )
    return None


def _targets(config: Config) -> Iterator[Fault]:
    if len(config.notify) > _MAX_TARGETS:
        yield error(("notify",), f"there are more than {_MAX_TARGETS}", "leave some out")
    for name, target in config.notify.items():
        yield from _target(("notify", name), target, config)


def _target(path: Path, target: NotifyTargetConfig, config: Config) -> Iterator[Fault]:
    form = target.form
    if (target.url is None) == (target.url_file is None):
        yield error(path, "it needs one of url and url_file", "write where messages go, once")
    if target.url is not None:
        fault = target_fault(target.url, config.gateway.url)
        if fault is not None:
            yield error((*path, "url"), *fault, ("gateway", "url"))
        if form == "slack":
            yield error(
                (*path, "url"),
                "whoever knows the URL of a webhook may write to the channel",
                "put it into a file, and write url_file",
                (*path, "form"),
            )
        if form == "ntfy" and not urls.split(target.url).path:
            yield error(
                (*path, "url"),
                "it names no topic",
                "write the topic as its path: https://ntfy.example.com/authz",
                (*path, "form"),
            )
    if form == "gotify" and target.token_file is None:
        yield error(path, "Gotify takes messages of an application", "write token_file")
    if target.token_file is not None and form not in _TOKEN:
        yield error((*path, "token_file"), f"{form} takes no token", "leave it out")
    if target.signing_key_file is not None and form != "json":
        yield error((*path, "signing_key_file"), f"{form} knows no signature", "leave it out")


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (_targets,)
