"""Where the gateway is reached from this machine."""

from pathlib import Path

from authz.config.endpoints import UNSPECIFIED
from authz.config.location import ANSWERS, init_folder
from authz.config.model import Config
from authz.setup.answers import AnswerError, SetupAnswers, from_json


def gateway_place(config: Config, configuration: Path) -> tuple[str, int]:
    """Return address and port: as published by a folder of `authz init`, else where Envoy listens.

    Args:
        config: authz.yaml.
        configuration: its file.
    """
    answers = read_answers(configuration)
    listen = config.gateway.listen
    host, port = (listen.host, listen.port) if answers is None else (answers.bind, answers.port)
    return UNSPECIFIED.get(host, host), port


def read_answers(configuration: Path) -> SetupAnswers | None:
    """Return what `authz init` was told; None where the file is of no folder of its own."""
    folder = init_folder(configuration.parent)
    if folder is None:
        return None
    try:
        return SetupAnswers(**from_json((folder / ANSWERS).read_text("utf-8")))
    except (OSError, ValueError, TypeError, AnswerError):
        return None
