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
from authz.login.clients.identity import identify, names_of, only_identity
from authz.login.clients.redirects import RedirectRules
from authz.login.clients.registration import Registrations
from authz.login.clients.registry import Clients
from authz.login.protocol.values import ClientKind, OAuthClient, OAuthError
from authz.tokens.sealing import Sealer
from tests.login.clients.test_documents import CALLBACK, CURSOR, HOST, URL, document

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


def registered(*uris: str, client_name: str = "") -> str:
    said = document(redirect_uris=list(uris), client_name=client_name)
    return str(registrations().register(said)["client_id"])


async def _fetch(url: str, host: str) -> Fetched:
    return Fetched(document(client_id=url, redirect_uris=[f"https://{host}/cb", LOCAL]), None)


def clients(file: Config, *, taken: bool = True, hosts: tuple[str, ...] | None = None) -> Clients:
    return Clients(file, Documents(_fetch, RULES, hosts), registrations(taken=taken))


def find(client_id: str, file: Config | None = None, **how: Any) -> OAuthClient:
    return asyncio.run(clients(file or config(), **how).find(client_id))


def refusal(client_id: str, file: Config | None = None, **how: Any) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        find(client_id, file, **how)
    assert caught.value.error == "invalid_client"
    assert caught.value.status == 401
    assert client_id not in caught.value.description or not client_id
    return caught.value


def test_a_configured_client_is_what_the_file_says() -> None:
    """Its name is its id; nobody vouches for it to people but the operator."""
    assert find("claude") == OAuthClient(
        "claude",
        ClientKind.CONFIGURED,
        "claude",
        "",
        ("https://claude.ai/cb",),
        frozenset({"mcp:files"}),
    )
    assert find("plain").scopes is None


def test_a_url_that_is_configured_is_not_fetched() -> None:
    """The operator says what is to be known of it (the draft's section 7.2)."""
    found = find("https://pre.example.test/client.json", hosts=())
    assert found.kind is ClientKind.CONFIGURED


def test_a_document_is_named_by_its_host() -> None:
    """Whatever it calls itself, and whatever else that host publishes."""
    found = find(URL)

    assert found.kind is ClientKind.DOCUMENT
    other = find(f"https://{HOST}/other")
    assert identify(found, CALLBACK).name == identify(other, CALLBACK).name == f"https://{HOST}"
    assert found.document_host == HOST
    assert found.redirect_uris == (CALLBACK, LOCAL)


def test_a_registered_client_is_named_by_where_its_log_ins_end() -> None:
    """And has no title, where it says none."""
    client_id = registered(LOCAL, client_name="Visual Studio Code")

    assert find(client_id) == OAuthClient(
        client_id, ClientKind.DYNAMIC, "Visual Studio Code", "", (LOCAL,), None
    )
    assert identify(find(client_id), LOCAL).name == "dynamic/loopback"
    assert find(registered("https://claude.ai/cb")).client_name == ""


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
    assert "at the issuer itself" in refusal("script").description
    assert "register anew" in refusal("dyn.x.y").description
    assert "operator" in refusal("dyn.x.y", taken=False).description
    assert "metadata document" in refusal(URL, hosts=()).description


def test_where_log_ins_are_direct_strangers_have_no_door() -> None:
    """Only clients that are configured for the front door come in by it."""
    file = config({"claude": {**CLIENTS["claude"], "login": "front_door"}}, login="direct")

    assert find("claude", file).kind is ClientKind.CONFIGURED
    refusal(URL, file)
    refusal(registered(LOCAL), file)


def test_registration_off_ends_those_who_registered() -> None:
    """An id of before is refused."""
    refusal(registered(LOCAL), taken=False)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        (LOCAL, "loopback"),
        ("https://localhost/cb", "loopback"),
        (CURSOR, "cursor"),
        ("https://claude.ai/a", "claude.ai"),
        ("https://claude.ai:8443/b", "claude.ai"),
        ("https://loopback/cb", "loopback."),
        ("https://cursor/cb", "cursor."),
        ("https://[2001:db8::1]/cb", "[2001:db8::1]"),
    ],
)
def test_names_of_registered_clients(uri: str, name: str) -> None:
    """Where the log-in ends, in a word that nothing else can have."""
    others = ("https://other.example/cb", "http://127.0.0.1/x", CURSOR)
    assert identify(find(registered(*others, uri)), uri).name == f"dynamic/{name}"


@pytest.mark.attack("name-renewed")
@given(
    st.lists(
        st.from_regex(r"[a-z]{1,8}\.example", fullmatch=True).map(lambda host: f"https://{host}/"),
        max_size=5,
    ),
    st.sampled_from([LOCAL, CURSOR, "https://own.example/cb"]),
    st.text(max_size=20),
)
def test_what_else_is_registered_gives_no_new_names(
    others: list[str], own: str, client_name: str
) -> None:
    """A program whose log-ins end in one place has one name, whatever it adds."""
    alone = find(registered(own))

    assert identify(find(registered(*others, own, client_name=client_name)), own).name == (
        identify(alone, own).name
    )


@pytest.mark.attack("client-look-alike")
def test_nobody_has_the_name_of_a_host_but_where_the_log_in_ends_there() -> None:
    """A document names log-ins that end at its origin; loopback and schemes are anybody's."""
    documented = OAuthClient(URL, ClientKind.DOCUMENT, "x", HOST, (CALLBACK, LOCAL, CURSOR))
    pretender = find(
        registered("https://evil.example/cb", client_name="Claude, client.example.test")
    )

    assert identify(documented, CALLBACK).name == f"https://{HOST}"
    assert identify(documented, LOCAL).name == "dynamic/loopback"
    assert identify(documented, CURSOR).name == "dynamic/cursor"
    assert identify(documented, "https://evil.example/cb").name == "dynamic/evil.example"
    assert identify(documented, f"https://{HOST}.evil.example/cb").name.startswith("dynamic/")
    assert identify(documented, f"https://{HOST}:8443/cb").name == f"dynamic/{HOST}"
    assert identify(pretender, "https://evil.example/cb").name == "dynamic/evil.example"
    assert identify(find("claude"), "https://claude.ai/cb").name == "claude"


HOSTS = st.from_regex(r"[a-z]{1,3}\.example", fullmatch=True)
PLACES = st.one_of(HOSTS, st.sampled_from(["loopback", "cursor:"]))


@pytest.mark.attack("blocked-comes-back")
@given(PLACES, st.one_of(st.just(""), HOSTS))
def test_a_host_is_one_client_for_blocks_whichever_way_it_came(ends_at: str, host: str) -> None:
    """A block of either spelling of the host, of where it ends or of its document, stops it."""
    uri = {"loopback": LOCAL, "cursor:": CURSOR}.get(ends_at, f"https://{ends_at}/cb")
    kind = ClientKind.DOCUMENT if host else ClientKind.DYNAMIC
    found = identify(OAuthClient("x", kind, "", host, (uri,)), uri)
    names = names_of(found)

    assert found.name in names
    assert f"dynamic/{ends_at.removesuffix(':')}" in names
    assert (f"https://{ends_at}" in names) == ("." in ends_at or ends_at == host)
    assert {f"https://{host}", f"dynamic/{host}"} <= names or not host


def test_a_client_of_the_file_is_blocked_as_itself_alone() -> None:
    """Its redirect URIs are the operator's: a block of their host is one of strangers."""
    assert names_of(identify(find("claude"), "https://claude.ai/cb")) == {"claude"}


@pytest.mark.parametrize(
    ("uris", "name"),
    [
        ((LOCAL,), "dynamic/loopback"),
        ((LOCAL, "http://localhost/cb"), "dynamic/loopback"),
        ((CALLBACK,), "dynamic/client.example.test"),
        ((LOCAL, CALLBACK), None),
        (("https://a.example/", "https://b.example/"), None),
    ],
)
def test_of_a_log_in_of_before_only_what_is_sure_is_believed(
    uris: tuple[str, ...], name: str | None
) -> None:
    """Where its end was not recorded, and the client may end it in several places: nothing."""
    found = only_identity(OAuthClient("x", ClientKind.DYNAMIC, "", "", uris))
    assert (None if found is None else found.name) == name
