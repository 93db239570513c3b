"""Where there has to be a Redis."""

from pathlib import Path

import pytest

from authz.config.load import Settings, read
from authz.config.problems import ConfigError
from authz.server.redis_options import URL, require_redis

FILE = Path("authz.yaml")
DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"


def settings(more: str) -> Settings:
    text = (
        "issuer: {url: https://auth.example.com}\n"
        "gateway: {url: https://mcp.example.com}\n"
        "servers: {files: {upstream: http://files:8000/mcp}}\n"
    )
    return read(text + more, "authz.yaml", {}, secrets=False)


def test_a_front_door_needs_a_redis() -> None:
    """Without one the service does not start: every token of the front door would be refused."""
    with pytest.raises(ConfigError) as caught:
        require_redis(settings(DOOR), {}, FILE)

    (problem,) = caught.value.problems
    assert (problem.file, problem.field) == ("authz.yaml", "redis.url")
    assert "the front door keeps log-ins and step-ups in Redis" in str(problem)


@pytest.mark.parametrize(
    ("more", "env"),
    [
        pytest.param("", {}, id="no front door"),
        pytest.param(f"{DOOR}redis: {{url: 'redis://redis'}}\n", {}, id="in the file"),
        pytest.param(DOOR, {URL: "unix:///run/valkey.sock"}, id="as authz up brings it"),
    ],
)
def test_there_is_one(more: str, env: dict[str, str]) -> None:
    """A Redis may come from the file or from the environment; without a door none is needed."""
    require_redis(settings(more), env, FILE)


@pytest.mark.parametrize("more", ["", DOOR], ids=["no front door", "front door"])
def test_what_is_no_redis_is_said_at_the_start(more: str) -> None:
    """An address in the environment that is none is told in words, without what it says."""
    with pytest.raises(ConfigError) as caught:
        require_redis(settings(more), {URL: "http://user:hidden@redis"}, FILE)

    (problem,) = caught.value.problems
    assert (problem.file, problem.field) == ("the environment", URL)
    assert "hidden" not in str(problem)


def test_sentinels_of_the_environment_are_held_to_what_the_file_says_of_tls() -> None:
    """The address is of the one, how sentinels are asked of the other."""
    more = "redis: {url: 'redis+sentinel://a:26379/main', sentinel: {tls: false}}\n"
    with pytest.raises(ConfigError) as caught:
        require_redis(settings(more), {URL: "rediss+sentinel://b:26379/main"}, FILE)

    (problem,) = caught.value.problems
    assert (problem.file, problem.field) == ("the environment", URL)
    assert "redis.tls.server_name" in str(problem)
