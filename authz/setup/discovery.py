"""Find the issuer's URL in the configuration of an existing Authelia, which is only read."""

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz.config.problems import WrongValueError
from authz.config.urls import ISSUER
from authz.setup.answers import AnswerError

_LARGEST: Final = 1 << 20
# Authelia's template filter runs before its YAML reader; what it puts in is none of our business.
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_WRITE: Final = "write --issuer, the URL that tokens say in `iss`"


def find_issuer(path: Path) -> str:
    """Return the issuer that an Authelia is, by its configuration.

    Raises:
        AnswerError: where the file cannot be read or does not tell.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise AnswerError(f"{path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise AnswerError(f"{path}: larger than 1 MiB")
    try:
        tree = YAML(typ="safe").load(_TEMPLATE.sub("'template'", data.decode()))
    except (YAMLError, ValueError):
        # A reader's words may quote the file, and a secret may stand in it.
        raise AnswerError(f"{path}: it cannot be read as YAML; {_WRITE}") from None
    urls = [each.get("authelia_url") for each in _cookies(tree)]
    found = [url.rstrip("/") for url in urls if isinstance(url, str)]
    if len(found) != 1:
        count = f"{len(found)} addresses" if found else "no address"
        raise AnswerError(f"{path}: {count} in session.cookies[].authelia_url; {_WRITE}")
    return check_issuer(found[0])


def check_issuer(url: str) -> str:
    """Return an issuer's URL, as authz.yaml takes it.

    Raises:
        AnswerError: where it is none.
    """
    try:
        ISSUER.read(url)
    except WrongValueError as error:
        raise AnswerError(f"issuer: {error.right}") from None
    if any(character in url for character in "'\"\\#{}[]&*!|>%@` \n"):
        raise AnswerError("issuer: write a plain URL, as https://auth.example.com")
    return url


def domain_of(url: str) -> str:
    """Return the domain that an issuer's name is in."""
    return (urlsplit(url).hostname or "").partition(".")[2]


def _cookies(tree: Any) -> list[dict[str, Any]]:
    session = tree.get("session") if isinstance(tree, dict) else None
    cookies = session.get("cookies") if isinstance(session, dict) else None
    return [each for each in cookies if isinstance(each, dict)] if isinstance(cookies, list) else []
