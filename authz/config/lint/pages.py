"""Lint the web interfaces behind the log-in (`pages`)."""

from collections.abc import Callable, Iterator
from typing import Final

from authz.config import urls
from authz.config.lint.deployment import RESERVED
from authz.config.model import Config
from authz.config.problems import Fault, Path, error, quoted, warning

_SECTION: Final[Path] = ("pages",)


def _needs(config: Config) -> Iterator[Fault]:
    if config.pages and config.front_door is None:
        yield error(
            _SECTION,
            "people log in for them at the front door, and there is no front_door section",
            "write front_door: {key_file: /run/secrets/front-door.pem}, or leave pages out",
            ("front_door",),
        )
    if config.pages and config.service.data_plane != "envoy":
        yield error(
            _SECTION,
            "only our own Envoy takes the session out of the cookies and strips what speaks for "
            "others",
            "write service.data_plane: envoy, or leave pages out",
            ("service", "data_plane"),
        )


def _hosts(config: Config) -> Iterator[Fault]:
    """Refuse the hosts of what a page's script must not be of one origin with.

    A script of the gateway's origin could approve calls, and one of the issuer's log people in.
    """
    taken = {
        urls.split(config.issuer.url).host: "the issuer's name",
        urls.split(config.gateway.url).host: "the gateway's name",
    }
    for name, page in config.pages.items():
        if page.host in taken:
            yield error(
                ("pages", name, "host"),
                f"{quoted(page.host)} is {taken[page.host]}: scripts of the page would act there, "
                "on what people log in and approve with",
                f"give the page a name of its own, as {name}.example.com",
                ("gateway", "url"),
                ("issuer", "url"),
            )


def _paths(config: Config) -> Iterator[Fault]:
    seen = list[tuple[str, str]]()
    for name, page in config.pages.items():
        where: Path = ("pages", name) if page.path is None else ("pages", name, "path")
        path = page.path or ""
        if path.split("/")[1:2] and path.split("/")[1].lower() in RESERVED:
            yield error(
                where,
                f"{quoted(path)} is an address of the log-in or of MCP's documents",
                "move the page to another path",
            )
        for other, host in seen:
            if host != page.host:
                continue
            taken = config.pages[other].path or ""
            if f"{path}/".startswith(f"{taken}/") or f"{taken}/".startswith(f"{path}/"):
                yield error(
                    where,
                    f"it overlaps with the page {other} on the same host",
                    "give each page a path of its own, or a host",
                    ("pages", other),
                )
            else:
                yield warning(
                    ("pages", name, "host"),
                    f"it shares its origin with the page {other}: a script of the one can act at "
                    "the other in a person's name",
                    "give each page a host, unless they are equally trusted",
                    ("pages", other),
                )
        seen.append((name, page.host))


def _rules(config: Config) -> Iterator[Fault]:
    for name, page in config.pages.items():
        factor = page.second_factor
        if factor is not None and "login" not in factor.evidence:
            yield error(
                ("pages", name, "second_factor", "evidence"),
                "the log-in alone proves a second factor to a page, so nobody could open it",
                "leave evidence out",
            )
        if page.groups is None:
            yield warning(
                ("pages", name),
                "whoever can log in at the issuer may open it",
                "write for example groups: [admins]",
            )


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (_needs, _hosts, _paths, _rules)
