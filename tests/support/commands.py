"""Commands of authz, typed at a whole that runs."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.support.demo_environment import RunningEnvironment


class Typed:
    """Type commands as the operator of `authz up` does."""

    def __init__(self, whole: RunningEnvironment) -> None:
        self.whole = whole

    def __call__(self, *words: str, token: str = "") -> Any:
        environment = self.whole.environment
        place = ("-c", str(environment.configuration), "--state", str(self.whole.state), "--json")
        env = {name: value for name, value in os.environ.items() if "AUTHZ" not in name}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "authz", *words, *place],
            input=token,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=env | {"USER": "ops"},
        )
        assert done.returncode == 0, done.stderr
        assert not token or token not in done.stdout + done.stderr
        return json.loads(done.stdout)
