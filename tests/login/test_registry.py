"""Who a client is: what its id proves, under a name that does not change at its will."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.model import Config
from authz.login.clients.documents import Documents
from authz.login.clients.fetching import Fetched
from authz.login.clients.redirects import RedirectRules
from authz.login.clients.registration import Registrations
from authz.login.clients.registry import Clients, Shown, dynamic_name, shown_as
from authz.login.values import FrontClient, Kind, OAuthRefused
from authz.tokens.sealing import Sealer
from tests.login.test_documents import CALLBACK, CURSOR, HOST, URL, document

NOW = 1_795_380_700.0
LOCAL = "http://127.0.0.1:33418/"
RULES = RedirectRules(frozenset({CURSOR}))
CLIENTS: Mapping[str, Any] = {
    "claude": {"redirect_uris": ["https://claude.ai/cb"], "scopes": ["mcp:files"]},
    "plain": {"redirect_uris": ["http://localhost/cb"]},
    "script": {"login": "direct", "redirect_uris": ["http://127.0.0.1/cb"]},
    "nightly": {"machine": True},
    "https://pre.example.test/client.json": {"redirect_uris": ["https://pre.example.test/cb"]},
}


def config(clients: Mapping[str, Any] = CLIENTS, **issuer: Any) -> Config:
    return Config.model_validate(
        {
            "issuer": {"url": "https://auth.example.test", **issuer},
            "gateway": {"url": "https://mcp.example.test"},
            "front_door": {"key_file": "/run/secrets/front-door.pem"},
            "clients": clients,
            "servers": {"files": {"upstream": "http://files:8000/mcp"}},
        }
    )


def registrations(*, taken: bool = True) -> Registrations:
    keys = Sealer(("k" * 40,), lambda: NOW).mac_key("client")
    return Registrations(keys, RULES, lambda: NOW, taken=taken)


def registered(*uris: str, title: str = "") -> str:
    said = document(redirect_uris=list(uris), client_name=title)
    return str(registrations().register(said)["client_id"])


async def _fetch(url: str, host: str) -> Fetched:
    return Fetched(document(client_id=url, redirect_uris=[f"https://{host}/cb", LOCAL]), None)


def clients(file: Config, *, taken: bool = True, hosts: tuple[str, ...] | None = None) -> Clients:
    return Clients(file, Documents(_fetch, RULES, hosts), registrations(taken=taken))


def find(client_id: str, file: Config | None = None, **how: Any) -> FrontClient:
    return asyncio.run(clients(file or config(), **how).find(client_id))


def refusal(client_id: str, file: Config | None = None, **how: Any) -> OAuthRefused:
    with pytest.raises(OAuthRefused) as caught:
        find(client_id, file, **how)
    assert caught.value.error == "invalid_client"
    assert caught.value.status == 401
    assert client_id not in caught.value.words or not client_id
    return caught.value


def test_a_configured_client_is_what_the_file_says() -> None:
    """Its name is its id; nobody vouches for it to people but the operator."""
    assert find("claude") == FrontClient(
        "claude",
        Kind.CONFIGURED,
        "claude",
        "claude",
        "",
        ("https://claude.ai/cb",),
        frozenset({"mcp:files"}),
    )
    assert find("plain").scopes is None


def test_a_url_that_is_configured_is_not_fetched() -> None:
    """The operator says what is to be known of it (the draft's section 7.2)."""
    found = find("https://pre.example.test/client.json", hosts=())
    assert found.kind is Kind.CONFIGURED


def test_a_document_is_named_by_its_host() -> None:
    """Whatever it calls itself, and whatever else that host publishes."""
    found = find(URL)

    assert found.kind is Kind.DOCUMENT
    assert found.name == find(f"https://{HOST}/other").name == f"https://{HOST}"
    assert found.verified_host == HOST
    assert found.redirect_uris == (CALLBACK, LOCAL)


def test_a_registered_client_is_named_by_where_its_log_ins_end() -> None:
    """And has that for a title, where it has none."""
    client_id = registered(LOCAL, title="Visual Studio Code")

    assert find(client_id) == FrontClient(
        client_id, Kind.DYNAMIC, "dynamic/loopback", "Visual Studio Code", "", (LOCAL,), None
    )
    assert find(registered("https://claude.ai/cb")).title == "claude.ai"


def test_default_narrows_who_is_not_configured() -> None:
    """And nobody else; it is no client itself."""
    file = config({**CLIENTS, "default": {"scopes": ["mcp:read"], "redirect_uris": [LOCAL]}})

    assert find(URL, file).scopes == frozenset({"mcp:read"})
    assert find(registered(LOCAL), file).scopes == frozenset({"mcp:read"})
    assert find("plain", file).scopes is None
    refusal("default", file)


@pytest.mark.parametrize(
    "client_id",
    [
        "",
        "unknown",
        "Claude",
        "claude ",
        "claude\n",
        "clаude",  # noqa: RUF001 - a Cyrillic letter
        "script",
        "nightly",
        "default",
        "authz-one-factor",
        "dynamic/loopback",
        f"https://{HOST}",
        "http://client.example.test/c",
        "https://localhost/c",
        "dyn.x.y",
        "x" * 3000,
    ],
)
def test_anybody_else_is_no_client(client_id: str) -> None:
    """Unknown, not of the front door, or no id at all; and the words repeat nothing."""
    refusal(client_id)


def test_words_say_what_to_do() -> None:
    """To the person who set the client up."""
    assert "at the issuer itself" in refusal("script").words
    assert "register anew" in refusal("dyn.x.y").words
    assert "operator" in refusal("dyn.x.y", taken=False).words
    assert "metadata document" in refusal(URL, hosts=()).words


def test_where_log_ins_are_direct_strangers_have_no_door() -> None:
    """Only clients that are configured for the front door come in by it."""
    file = config({"claude": {**CLIENTS["claude"], "login": "front_door"}}, login="direct")

    assert find("claude", file).name == "claude"
    refusal(URL, file)
    refusal(registered(LOCAL), file)


def test_registration_off_ends_those_who_registered() -> None:
    """An id of before is refused."""
    refusal(registered(LOCAL), taken=False)


@pytest.mark.parametrize(
    ("uris", "name"),
    [
        ([LOCAL], "loopback"),
        (["https://localhost/cb"], "loopback"),
        ([CURSOR], "cursor"),
        (["https://claude.ai/a", "https://claude.ai:8443/b"], "claude.ai"),
        (["https://loopback/cb"], "loopback."),
        (["https://cursor/cb"], "cursor."),
        (["https://several/cb"], "several."),
        (["https://[2001:db8::1]/cb"], "[2001:db8::1]"),
        (["https://a.example/cb", "https://b.example/cb"], "several"),
        (["https://insiders.vscode.dev/r", "https://vscode.dev/r", LOCAL], "loopback"),
        (["https://a.example/cb", CURSOR], "cursor"),
        ([CURSOR, LOCAL], "loopback"),
    ],
)
def test_names_of_registered_clients(uris: list[str], name: str) -> None:
    """Loopback before schemes before hosts; several hosts are one name."""
    assert dynamic_name(uris) == f"dynamic/{name}"


@pytest.mark.attack("name-renewed")
@given(
    st.lists(
        st.from_regex(r"[a-z]{1,8}\.example", fullmatch=True).map(lambda host: f"https://{host}/"),
        max_size=5,
    ),
    st.sampled_from([LOCAL, CURSOR, "https://own.example/cb"]),
    st.text(max_size=20),
)
def test_adding_hosts_of_others_gives_no_new_names(others: list[str], own: str, title: str) -> None:
    """A program whose log-ins end in one place has two names at most, whatever it adds."""
    name = find(registered(*others, own, title=title)).name

    assert name in {dynamic_name([own]), "dynamic/several"}
    assert name == find(registered(own, *reversed(others))).name


@pytest.mark.attack("client-look-alike")
def test_nobody_is_shown_as_verified_but_where_the_verifying_host_is_the_end() -> None:
    """A document vouches for log-ins that end at its host; loopback and schemes are anybody's."""
    vouched = find(URL)
    pretender = find(registered("https://evil.example/cb", title="Claude, client.example.test"))
    native = FrontClient(URL, Kind.DOCUMENT, "x", "x", HOST, (CALLBACK, LOCAL, CURSOR))

    assert shown_as(vouched, CALLBACK) == Shown(HOST, verified=True)
    assert shown_as(native, LOCAL) == Shown("loopback", verified=False)
    assert shown_as(native, CURSOR) == Shown("cursor", verified=False)
    assert shown_as(native, "https://evil.example/cb") == Shown("evil.example", verified=False)
    assert shown_as(pretender, "https://evil.example/cb") == Shown("evil.example", verified=False)
    assert shown_as(find("claude"), "https://claude.ai/cb") == Shown("claude.ai", verified=False)
