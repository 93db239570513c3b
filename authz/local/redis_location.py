"""Where a deployment's Redis is: in authz.yaml, the environment, or that of `authz up`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from authz.config.files import read_regular
from authz.config.load import Settings
from authz.ledger.redis import RedisOptions
from authz.local.state import FAILED, SetupError, State
from authz.local.valkey import USER
from authz.server.redis_options import PASSWORD_FILE, URL, USERNAME, redis_options

# A person waits longer than a request does.
_LONGEST: Final = 256  # bytes of a password of ours
_PATIENCE: Final = 5.0


def shared_redis(settings: Settings, env: Mapping[str, str], folder: Path) -> RedisOptions:
    """Return how to reach the Redis of a deployment.

    Args:
        settings: of authz.yaml.
        env: the environment.
        folder: the state folder of `authz up`, where its Valkey is looked for.

    Raises:
        SetupError: where there is none: a service without one keeps revocations in its own
            memory, which nobody else can write to.
        OSError: where a password file cannot be read.
    """
    options = redis_options(settings, env)
    if options is not None:
        return replace(options, timeout=_PATIENCE)
    state = State(folder.absolute())
    try:
        password = read_regular(state.redis_password, _LONGEST).decode("ascii").strip()
    except FileNotFoundError:
        raise SetupError(
            "there is no Redis to ask: authz.yaml has no redis.url, and no `authz up` has"
            f" its state in {state.folder} (--state names another folder). A service without"
            " Redis keeps what it knows in its own memory, which nobody else can read or write"
        ) from None
    except (OSError, ValueError) as error:
        raise SetupError(f"{state.redis_password} cannot be read: {error}", FAILED) from error
    deployment = settings.config.redis.deployment
    url = f"unix://{state.socket('valkey')}"
    return RedisOptions(url, USER, password, deployment, timeout=_PATIENCE)


def as_its_service(settings: Settings, env: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """Return the environment as the service of a running `authz up` has it, or `env` as it is.

    For commands that only look: where there is no Redis they say so themselves.

    Args:
        settings: of authz.yaml.
        env: the environment.
        folder: the state folder of `authz up`.
    """
    state = State(folder.absolute())
    named = settings.config.redis.url is not None or URL in env
    if named or not state.redis_password.is_file() or not state.socket("valkey").is_socket():
        return env
    return {
        **env,
        URL: f"unix://{state.socket('valkey')}",
        USERNAME: USER,
        PASSWORD_FILE: str(state.redis_password),
    }
