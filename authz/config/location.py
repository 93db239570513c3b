"""Where authz.yaml is: beside whoever asks, or in the folder `authz` of what `authz init` wrote.

In a folder of `authz init` it lies in a folder of its own, which containers mount as a whole: of a
file that is mounted alone a container keeps the old one when an editor puts a new file in its
place.
"""

import re
from pathlib import Path
from typing import Final

COMPOSE: Final = "docker-compose.yml"
# Its service that reaches all that `authz doctor` asks.
DOCTOR: Final = "doctor"
NAME: Final = "authz.yaml"
FOLDER: Final = "authz"
# Where containers have that folder.
MOUNTED: Final = "/etc/authz"
ANSWERS: Final = "init.json"


def find_configuration(path: Path) -> Path:
    """Return the authz.yaml that is meant.

    Args:
        path: the file; or a folder that holds `authz.yaml` or `authz/authz.yaml`. Where
            `DIR/authz.yaml` does not exist, `DIR/authz/authz.yaml` is meant if that does.
    """
    if path.is_dir():
        path /= NAME
    if path.name == NAME and not path.exists():
        nested = path.parent / FOLDER / NAME
        if nested.exists():
            return nested
    return path


def init_folder(folder: Path) -> Path | None:
    """Return the folder that `authz init` wrote; None where authz.yaml is somebody's own.

    Args:
        folder: of authz.yaml.
    """
    folder = folder.absolute()
    above = [folder.parent] if folder.name == FOLDER else []
    return next((each for each in (folder, *above) if (each / ANSWERS).is_file()), None)


def host_file(file: str, configuration: Path) -> Path:
    """Return where this machine has a file that authz.yaml names.

    Args:
        file: as it is named.
        configuration: authz.yaml. In a folder of `authz init` what containers have in `/etc/authz`
            is beside it.
    """
    path = Path(file)
    if file.startswith(f"{MOUNTED}/") and not path.exists():
        folder = init_folder(configuration.parent)
        if folder is not None:
            return folder / FOLDER / file.removeprefix(f"{MOUNTED}/")
    return path


def has_service(compose: str, name: str) -> bool:
    """Tell whether the text of a docker-compose.yml, as `authz init` writes it, has a service."""
    services = re.split(r"^services:\s*$", compose, maxsplit=1, flags=re.MULTILINE)
    section = re.split(r"^\w", services[-1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(rf"^  {re.escape(name)}:\s*$", section, re.MULTILINE)
    return len(services) > 1 and found is not None


def has_doctor(folder: Path) -> bool:
    """Tell whether a folder of `authz init` has the service of `authz doctor`."""
    try:
        return has_service((folder / COMPOSE).read_text("utf-8"), DOCTOR)
    except (OSError, ValueError):
        return False
