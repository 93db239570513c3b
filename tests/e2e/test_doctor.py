"""The doctor on the whole: nothing is wrong with it."""

import asyncio
import os

from authz.config.load import load
from authz.doctor.finding import has_problems
from authz.doctor.run import DoctorOptions, examine
from authz.local.running import REDIS_PASSWORD_FILE, REDIS_URL, REDIS_USERNAME
from authz.local.state import State
from authz.local.valkey import USER
from tests.support.demo_environment import RunningEnvironment


def test_the_whole_is_sound(whole: RunningEnvironment) -> None:
    """A deployment that works has no problems, and each part of it was seen."""
    settings = load(whole.environment.configuration, os.environ)
    state = State(whole.state)
    env = {
        REDIS_URL: f"unix://{state.socket('valkey')}",
        REDIS_USERNAME: USER,
        REDIS_PASSWORD_FILE: str(state.redis_password),
    }
    options = DoctorOptions(
        whole.environment.configuration, state.socket("admin"), admin_named=True
    )
    found = asyncio.run(examine(settings, options, env))

    assert not has_problems(found), "\n".join(map(str, found))
    assert {"metadata", "keys", "agrees", "rights"} <= {each.diagnosis for each in found}
