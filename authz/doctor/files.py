"""Warnings of authz.yaml, and the modes of files and sockets; no file is opened."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from authz.config.endpoints import Unix
from authz.config.load import Settings
from authz.config.problems import quoted
from authz.doctor.finding import Finding, note, ok, problem, warning

PART: Final = "files"
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def examine(settings: Settings, path: Path, admin: Path) -> Iterator[Finding]:
    """Look at authz.yaml, what it warns of, and the sockets' folders."""
    for found in settings.warnings:
        yield warning(PART, "configuration", f"{found.field}: {found.wrong}", found.right)
    if _mode(path) & stat.S_IWOTH:
        message = f"everybody on this machine may change {quoted(str(path))}"
        yield problem(PART, "writable", message, f"chmod o-w {path}")
    check = settings.config.service.check
    sockets = [("service.check", Path(check.path))] if isinstance(check, Unix) else []
    servers = settings.config.servers.items()
    sockets += [
        (f"servers.{name}.socket", Path(server.socket.path))
        for name, server in servers
        if server.socket is not None
    ]
    for name, socket in [*sockets, ("Envoy's admin socket", admin)]:
        if _mode(socket.parent) & stat.S_IWOTH and not _mode(socket.parent) & stat.S_ISVTX:
            message = f"everybody may replace {name}: its folder is writable by all"
            yield problem(PART, "writable", message, f"chmod o-w {socket.parent}")
    if _mode(admin) & stat.S_IRWXO:
        message = "everybody on this machine may stop Envoy and read its configuration"
        yield problem(PART, "open_admin", message, f"chmod o-rwx {admin}; admin.mode in envoy.yaml")
    yield from _unseen(settings)
    yield ok(
        PART, "read", f"{quoted(str(path))} is right: {len(settings.policy.servers)} server(s)"
    )


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _unseen(settings: Settings) -> Iterator[Finding]:
    """Say what only Authelia's own configuration tells."""
    config = settings.config
    assured = [name for name, client in config.named.items() if client.assurance is not None]
    if assured:
        names = ", ".join(assured)
        yield note(
            PART,
            "sessions",
            f"what cannot be seen from here: that Authelia grants codes to {names} only under "
            "authorization_policy: two_factor, and that its sessions are in Redis (in memory they "
            "outlive their expiration, and with them the TOTP)",
            "authorization_policy of these clients, and session.redis, in Authelia's configuration",
        )
