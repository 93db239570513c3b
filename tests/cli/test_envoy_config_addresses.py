"""Where `authz envoy-config` is told that Envoy finds the parts, and where it is asked."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.commands import type_command

CONFIG = """\
issuer: {url: https://auth.example.test, internal: 'http://authelia:9091'}
front_door: {key_file: /k.pem}
gateway: {url: https://mcp.example.test, listen: '127.0.0.1:8443'}
redis: {url: 'redis://redis:6379'}
service: {workers: 2}
servers: {files: {upstream: 'http://files:8000/mcp', scopes: ['mcp:files']}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "authz.yaml"
    path.write_text(CONFIG)
    return path


def endpoints(text: str, name: str) -> list[tuple[str, int]]:
    clusters = YAML(typ="safe").load(text)["static_resources"]["clusters"]
    (cluster,) = (each for each in clusters if each["name"] == name)
    (locality,) = cluster["load_assignment"]["endpoints"]
    sockets = [each["endpoint"]["address"]["socket_address"] for each in locality["lb_endpoints"]]
    return [(each["address"], each["port_value"]) for each in sockets]


def test_names_lead_to_every_worker_and_replica(config: Path) -> None:
    command = ("envoy-config", str(config), "--check", "authz:9001", "--replica", "other:9001")
    done = type_command(*command, "--pages", "a:9002", "--pages", "b:9003")
    assert done.status == 0
    workers = [("authz", 9001), ("authz", 9002), ("other", 9001), ("other", 9002)]
    assert endpoints(done.out, "authz") == workers
    assert endpoints(done.out, "pages") == [("a", 9002), ("b", 9003)]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--check", "nowhere", "--check"),
        ("--pages", "nowhere", "--pages"),
        ("--scrape", "unix:/x", "--scrape"),
        ("--drain", "0.0.0.0:9467", "127.0.0.1"),
        ("--drain", "10.0.0.1:9467", "127.0.0.1"),
    ],
)
def test_what_is_no_place_is_refused(config: Path, option: str, value: str, said: str) -> None:
    """Whoever reaches `--drain` could empty this Envoy."""
    done = type_command("envoy-config", str(config), option, value)
    assert done.status == 2
    assert said in done.err
