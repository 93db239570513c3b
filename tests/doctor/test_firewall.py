"""The doctor's look at the bound on connections of one address."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from authz.doctor import firewall
from authz.setup.answers import SetupAnswers
from tests.doctor.kit import diagnoses

RULES = "table inet authz {\n chain connections {\n ip saddr ct count over 512\n}\n}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "firewall.nft").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("listed", "diagnosis"), [(RULES, "bounded"), ("", "unbounded"), (None, "unknown")]
)
def test_the_kernels_own_word_counts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, listed: str | None, diagnosis: str
) -> None:
    """A rule that was written and not loaded bounds nothing."""
    monkeypatch.setattr(firewall, "_listed", lambda: listed)

    assert diagnoses(firewall.examine(folder, 0)) == [diagnosis]


def test_the_rules_are_in_the_folder_of_init_or_beside_authz_yaml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder of one's own that is called as ours inside is one's own all the same."""
    monkeypatch.setattr(firewall, "_listed", lambda: RULES)
    inner = tmp_path / "authz"
    inner.mkdir()
    (inner / "firewall.nft").write_text("")
    assert diagnoses(firewall.examine(inner, 0)) == ["bounded"]

    (tmp_path / "init.json").write_text("{}")
    assert firewall.examine(inner, 0) == []
    (tmp_path / "firewall.nft").write_text("")
    assert diagnoses(firewall.examine(inner, 0)) == ["bounded"]


def test_nothing_is_said_where_it_would_be_wrong(folder: Path, tmp_path: Path) -> None:
    """Behind a proxy all connections are the proxy's; without the file it is somebody else's."""
    assert firewall.examine(folder, 1) == []
    assert firewall.examine(tmp_path / "elsewhere", 0) == []


def isolated() -> bool:
    """Tell whether a network of our own can be had, and rules loaded there."""
    command = ["unshare", "-n", "nft", "list", "ruleset"]
    tools = shutil.which("unshare") and shutil.which("nft")
    return bool(tools) and subprocess.run(command, capture_output=True, check=False).returncode == 0


FLOOD = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for _ in range(2):
    subprocess.run(["nft", "-f", sys.argv[1]], check=True)
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    server = socket.create_server((address, 8443), family=family, backlog=600)
    held = []
    try:
        for _ in range(600):
            held.append(socket.create_connection((address, 8443), timeout=5))
    except ConnectionRefusedError:
        pass
    print(len(held))
    if family == socket.AF_INET:
        socket.create_connection((address, 8443), timeout=5, source_address=("127.0.0.2", 0))
"""


@pytest.mark.attack("silent-connections")
@pytest.mark.skipif(not isolated(), reason="needs root, unshare and nft")
def test_one_address_holds_no_more_than_its_bound(tmp_path: Path) -> None:
    """Of IPv4 and of IPv6, in a network of its own; another address connects meanwhile."""
    from authz.setup.write import _text, _values  # noqa: PLC0415 - what init writes

    rules = tmp_path / "firewall.nft"
    rules.write_text(_text("firewall.nft", _values(SetupAnswers(domain="a.test", port=8443))))
    command = ["unshare", "-n", sys.executable, "-c", FLOOD, str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["512", "512"]
    assert os.geteuid() == 0
