"""How to reach Redis: as authz.yaml or the environment of `authz up` says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from authz.config.files import read_regular
from authz.config.load import Settings
from authz.config.model import RedisTlsConfig
from authz.config.problems import ConfigError, ConfigProblem, ProblemSeverity
from authz.config.secret_files import REDIS_PASSWORD
from authz.ledger.connections import TlsFiles
from authz.ledger.location import SentinelAccess
from authz.ledger.redis import RedisOptions

_LONGEST: Final = 16 * 1024  # bytes of a password file
URL: Final = "AUTHZ_REDIS_URL"
USERNAME: Final = "AUTHZ_REDIS_USERNAME"
PASSWORD_FILE: Final = "AUTHZ_REDIS_PASSWORD_FILE"  # noqa: S105 - the variable's name
_FILE: Final = Path("authz.yaml")
# Why a reload is refused that would lose a Redis which answers now.
REDIS_REFUSED: Final = (
    "redis: it does not answer with these settings, and does with those in force: look at"
    " redis.url, redis.username and the password"
)


def require_redis(
    settings: Settings, env: Mapping[str, str], file: Path = _FILE
) -> RedisOptions | None:
    """Return how to reach Redis, where a front door, which keeps log-ins there, has to have one.

    Asked of a process, not of the file: `authz up` brings a server of its own.

    Raises:
        ConfigError: as `redis_options`; where there is a front door, and neither authz.yaml
            (`file`) nor the environment names a Redis.
        OSError: as `redis_options`.
    """
    options = redis_options(settings, env)
    if settings.config.front_door is not None and options is None:
        wrong = "is missing, and the front door keeps log-ins and step-ups in Redis"
        right = f"write redis: {{url: redis://redis:6379/0}}, set {URL}, or start `authz up`"
        raise ConfigError(
            [ConfigProblem(str(file), 0, 0, "redis.url", wrong, right, ProblemSeverity.ERROR)]
        )
    return options


def redis_options(settings: Settings, env: Mapping[str, str]) -> RedisOptions | None:
    """Return how to reach Redis; None where limits are kept in the process.

    `AUTHZ_REDIS_URL` takes the place of `redis.url`, together with `AUTHZ_REDIS_USERNAME` and
    `AUTHZ_REDIS_PASSWORD_FILE` or `AUTHZ_REDIS_PASSWORD`; `redis.tls` and `redis.sentinel` hold.

    Raises:
        ConfigError: where the environment names what is no Redis.
        OSError: where the password file cannot be read.
    """
    config = settings.config.redis
    tls, sentinel = _tls(config.tls), _sentinel(settings)
    if URL in env:
        return _of_environment(env, config.deployment, tls, sentinel)
    if config.url is None:
        return None
    return RedisOptions(
        config.url,
        config.username or "",
        _revealed(settings.secrets.redis_password),
        config.deployment,
        tls=tls,
        sentinel=sentinel,
    )


def _tls(config: RedisTlsConfig) -> TlsFiles | None:
    named = config.ca_file, config.certificate, config.key, config.server_name
    return TlsFiles(*(each or "" for each in named)) if any(named) else None


def _sentinel(settings: Settings) -> SentinelAccess:
    config = settings.config.redis.sentinel
    password = _revealed(settings.secrets.redis_sentinel)
    return SentinelAccess(config.username or "", password, config.tls)


def _revealed(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _of_environment(
    env: Mapping[str, str], deployment: str, tls: TlsFiles | None, sentinel: SentinelAccess
) -> RedisOptions:
    file = env.get(PASSWORD_FILE)
    if file is None:
        password = env.get(REDIS_PASSWORD, "")
    else:
        password = read_regular(Path(file), _LONGEST).decode().rstrip("\r\n")
    try:
        return RedisOptions(
            env[URL], env.get(USERNAME, ""), password, deployment, tls=tls, sentinel=sentinel
        )
    except ValueError as error:
        # Its words are fixed: the address, which may hold a password, is not in them.
        right = "write for example redis://redis:6379/0"
        raise ConfigError(
            [
                ConfigProblem(
                    "the environment", 0, 0, URL, f"is wrong: {error}", right, ProblemSeverity.ERROR
                )
            ]
        ) from None
