"""An edit changes one place of a YAML text, and every other byte stays."""

import difflib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.config.yaml_edit import EditError, append_item, set_member

BLOCK = """\
# mine
servers:   # all of them
  files:
    upstream: http://files:8000/mcp   # the first

  # what follows is about notes
  notes: {upstream: http://notes:8000/mcp}
  # the end

# of the gateway
gateway: {url: https://mcp.example.com}
"""
NEW = {"upstream": "http://new:8000/mcp", "scopes": ["a:b", "c"]}
TEXTS = {
    "block": BLOCK,
    "last": "gateway: {url: x}\nservers:\n    files: {upstream: 'http://a/b'}",
    "flow": "servers: {files: {upstream: http://a/b}}   # one\ngateway: {}\n",
    "flow-comma": "servers: {files: {upstream: http://a/b},}\n",
    "flow-lines": "servers: {\n  files: {upstream: x},   # why, and so on\n}\nz: 1\n",
    "flow-last-comment": "servers: {\n  files: {upstream: x}   # a, b\n}\nz: 1\n",
    "none": "gateway: {url: x}   # no newline",
    "empty": "servers: {}\nz: 1\n",
    "literal": "servers:\n  files:\n    note: |\n      two\n\n      lines\n\nz: 1\n",
    "windows": "servers:\r\n  files: {upstream: x}\r\nz: 1\r\n",
}


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_member_is_put_in_and_nothing_else_changes(text: str) -> None:
    """Every character of before is there in its order, and what it means, too."""
    edited = set_member(text, ("servers",), "new", NEW)

    wanted = plain(text)
    wanted["servers"] = {**(wanted.get("servers") or {}), "new": NEW}
    assert plain(edited) == wanted
    steps = difflib.SequenceMatcher(None, text, edited, autojunk=False).get_opcodes()
    assert {kind for kind, *_ in steps} <= {"equal", "insert"}


def test_where_it_stands() -> None:
    """After the last server, before what comes behind the section, in its indentation."""
    edited = set_member(BLOCK, ("servers",), "new", {"upstream": "http://new/mcp"})
    assert edited == BLOCK.replace(
        "http://notes:8000/mcp}\n",
        'http://notes:8000/mcp}\n  new:\n    upstream: "http://new/mcp"\n',
    )


def test_a_value_is_replaced_with_its_comment_left() -> None:
    """Also where it is quoted."""
    path = ("servers", "files")
    edited = set_member(BLOCK, path, "upstream", "http://other/mcp")
    assert edited == BLOCK.replace("http://files:8000/mcp ", '"http://other/mcp" ')
    again = set_member(edited, path, "upstream", "x")
    assert again == BLOCK.replace("http://files:8000/mcp ", "x ")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "servers: 7", "servers:", "servers: [a]", "a: b: c", "servers: {files", "\x00",
        "servers: &a {x: 1}\nother: *a\n", "servers: {new: {upstream: x}}", "%YAML 9\n---\na: 1",
        "---\na: 1\n---\nb: 2\n", "!!python/name:os.system a: 1",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_not_edited(text: str) -> None:
    """A text of another shape is refused; what an alias shares would change in two places."""
    with pytest.raises(EditError):
        set_member(text, ("servers",), "new", NEW)


NAMES = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=9)


@given(
    NAMES,
    st.dictionaries(NAMES, NAMES | st.integers() | st.booleans(), min_size=1, max_size=3),
    st.sampled_from(sorted(TEXTS)),
)
def test_any_words_are_read_back_as_they_are(key: str, value: dict[str, object], name: str) -> None:
    """Quotes, braces, hashes and colons within a value end nothing."""
    text = TEXTS[name]
    try:
        edited = set_member(text, ("servers",), key, value)
    except EditError:
        assert key in (plain(text).get("servers") or {})
        return
    assert plain(edited)["servers"][key] == value


COMPOSE = """\
x-h: &h
  restart: always
services:
  envoy:
    <<: *h
    networks: [edge, auth]   # who
  authz: {<<: *h}
networks:
  edge: {}
  auth: {internal: true}

volumes: {}
"""


def test_a_compose_file_gets_a_network() -> None:
    """Anchors and merge keys elsewhere in it stay."""
    edited = append_item(COMPOSE, ("services", "envoy", "networks"), "mcp-new")
    edited = set_member(edited, ("networks",), "mcp-new", {"internal": True}, braces=True)
    assert edited == COMPOSE.replace("auth]", "auth, mcp-new]").replace(
        "auth: {internal: true}\n", "auth: {internal: true}\n  mcp-new: {internal: true}\n"
    )
    with pytest.raises(EditError):
        append_item(COMPOSE, ("services", "nobody", "networks"), "x")
    block = COMPOSE.replace("[edge, auth]", "\n      - edge")
    with pytest.raises(EditError):
        append_item(block, ("services", "envoy", "networks"), "x")
