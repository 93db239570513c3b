"""Who of a running `authz up` keeps another configuration than authz.yaml asks for, as a program.

`python -m authz.local.restarts` reads `UpSettings` as JSON from its standard input, and prints the
names, one a line.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from authz.config.load import load
from authz.config.problems import ConfigError
from authz.envoy.files import ENVOY_FILE, RENDERED_FILE
from authz.envoy.render import render_watched
from authz.envoy.render.settings import topology_of
from authz.local.deployment import digest_edge
from authz.local.running import UpSettings
from authz.local.state import State


def restarts_of_up(running: UpSettings, env: Mapping[str, str]) -> Sequence[str]:
    """Return who has to be started again for authz.yaml to be in force.

    Raises:
        OSError, ValueError: where Envoy's folder is not as `authz up` left it.
    """
    try:
        settings = load(Path(running.configuration), env, secrets=False, authorities=True)
    except ConfigError:
        return ()  # the service says what is wrong, and goes on as before
    rendered = State(Path(running.folder)).envoy / RENDERED_FILE
    where = topology_of(rendered.read_text("utf-8"))
    edge = digest_edge(render_watched(settings, where)[ENVOY_FILE])
    found = (
        ("Envoy", edge != running.edge),
        ("the front door", running.front_door != (settings.config.front_door is not None)),
    )
    return [name for name, differs in found if differs]


if __name__ == "__main__":
    for each in restarts_of_up(UpSettings.of(sys.stdin.read()), os.environ):
        print(each)  # noqa: T201 - its answer
