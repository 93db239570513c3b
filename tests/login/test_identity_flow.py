"""A client is what its log-in really was: through the whole front door, and in its record."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from authz.core.principal import LoginRecord
from authz.ledger.keys import RedisKeys as Names
from authz.ledger.login_records import LoginRecords
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetched, FetchError
from authz.login.protocol.grant import encode
from authz.login.protocol.members import digest
from authz.login.protocol.people import find_person
from authz.login.store.blocklist import BlocklistEntry
from authz.login.store.known_clients import block, known_clients
from authz.login.store.known_people import known_people
from authz.login.store.sealed import open_refresh, seal_refresh
from tests.login.front import FILES, LOOPBACK, NOTES, FrontDoorClient, FrontDoorStage
from tests.login.test_attacks import say

Play = Callable[..., Any]
EVIL = "https://evil.example/cb"
HOST = "client.example.test"
DOCUMENT = f"https://{HOST}/client.json"
FOREIGN = "https://redirect.example/cb"
OWN = f"https://{HOST}/cb"


def publish(found: FrontDoorStage, *redirect_uris: str, **said: Any) -> list[str]:
    """Let documents say this; return the URLs that are fetched."""
    fetched: list[str] = []

    async def fetch(url: str, host: str) -> Fetched:
        fetched.append(url)
        body = {"client_id": url, "redirect_uris": list(redirect_uris), **said}
        return Fetched(json.dumps(body).encode(), 600)

    found.built._documents._fetch = fetch
    return fetched


async def record(found: FrontDoorStage, token: str) -> LoginRecord:
    log_in = await LoginRecords(found.ledger.command, Names(found.deployment)).get(token)
    assert log_in is not None
    return log_in


async def block_in(found: FrontDoorStage, what: str) -> int:
    built = found.built
    return await block(built.grants, built.blocks, BlocklistEntry(what, 1, "root", "test"))


async def come(found: FrontDoorStage, redirect_uri: str, *others: str) -> FrontDoorClient:
    """A client that registers several redirect URIs, and uses one."""
    client = FrontDoorClient(found, redirect_uri=redirect_uri, resource=NOTES)
    await client.register(redirect_uris=[redirect_uri, *others])
    return client


@pytest.mark.parametrize(
    ("uri", "others", "name", "ends_at"),
    [
        (LOOPBACK, (EVIL,), "dynamic/loopback", "loopback"),
        (EVIL, (LOOPBACK, FOREIGN), "dynamic/evil.example", "evil.example"),
        (FOREIGN, (EVIL, LOOPBACK), "dynamic/redirect.example", "redirect.example"),
    ],
)
def test_the_record_says_where_the_log_in_ended(
    play: Play, uri: str, others: tuple[str, ...], name: str, ends_at: str
) -> None:
    """Whatever else was registered; and a refresh keeps it."""

    async def scene(found: FrontDoorStage) -> None:
        client = await come(found, uri, *others)
        tokens = await client.tokens()
        again = (await client.refresh(tokens["refresh_token"])).json()
        for each in (tokens, again):
            log_in = await record(found, each["access_token"])
            assert (log_in.client, log_in.redirect_uri) == (name, uri)
            assert (log_in.ends_at, log_in.document_host) == (ends_at, "")

    play(scene)


@pytest.mark.attack("blocked-comes-back")
@pytest.mark.parametrize(
    ("blocked", "others", "document"),
    [
        ("dynamic/evil.example", (FOREIGN,), False),
        ("dynamic/evil.example", (LOOPBACK,), False),
        ("dynamic/evil.example", (LOOPBACK, FOREIGN), False),
        ("https://evil.example", (LOOPBACK,), False),
        ("dynamic/evil.example", (LOOPBACK,), True),
        ("https://evil.example", (), True),
        (f"https://{HOST}", (), True),
        (f"dynamic/{HOST}", (LOOPBACK,), True),
    ],
)
def test_who_is_blocked_does_not_come_back_by_another_list(
    play: Play, blocked: str, others: tuple[str, ...], document: bool
) -> None:
    """Neither by more redirect URIs, nor by a document, its own or another host's."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, EVIL, *others)
        if document:
            client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=EVIL, resource=NOTES)
        else:
            client = await come(found, EVIL, *others)
        tokens = await client.tokens()
        assert (await client.authorize()).status_code == 200
        assert await block_in(found, blocked) == 1
        answer = await client.authorize()
        assert answer.status_code == 403
        assert "was blocked" in answer.text
        assert (await client.refresh(tokens["refresh_token"])).status_code == 400

    play(scene)


@pytest.mark.attack("blocked-comes-back")
def test_a_block_between_click_and_code_counts_for_where_it_ends(play: Play) -> None:
    """The code of a log-in that ends at a blocked host is worth nothing."""

    async def scene(found: FrontDoorStage) -> None:
        client = await come(found, EVIL, LOOPBACK)
        back = await client.log_in()
        await block_in(found, "dynamic/evil.example")
        answer = await client.exchange(back["code"])
        assert answer.json()["error"] == "unauthorized_client"
        assert found.keys("log-in") == found.keys("grants") == []

    play(scene)


def test_a_block_of_one_place_leaves_the_others_alone(play: Play) -> None:
    """One registration, two log-ins: each is a client of its own, also in the list."""

    async def scene(found: FrontDoorStage) -> None:
        evil = await come(found, EVIL, LOOPBACK)
        await evil.tokens()
        here = FrontDoorClient(found, client_id=evil.client_id, resource=NOTES)
        tokens = await here.tokens()
        built = found.built
        assert await block_in(found, "dynamic/evil.example") == 1
        (left,) = await known_clients(built.grants, built.blocks)
        assert (left.name, left.blocked) == ("dynamic/loopback", False)
        assert (await here.refresh(tokens["refresh_token"])).status_code == 200

    play(scene)


CURSOR = "cursor://authz/cb"


@pytest.mark.attack("a scheme that the operator took back")
@pytest.mark.parametrize("document", [False, True])
def test_a_scheme_that_is_taken_back_ends_what_ended_there(play: Play, document: bool) -> None:
    """Neither a code nor a refresh is good any more, whatever else the client registered."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, CURSOR, LOOPBACK)
        if document:
            client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=CURSOR, resource=NOTES)
        else:
            client = await come(found, CURSOR, LOOPBACK)
        tokens = await client.tokens()
        code = (await client.log_in())["code"]
        await say(found, redirect_uris=(LOOPBACK,))  # as a reload does
        for answer in (await client.exchange(code), await client.refresh(tokens["refresh_token"])):
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")

    allowed = f"front_door: {{private_redirect_uris: ['{CURSOR}'], "
    play(scene, lambda text: text.replace("front_door: {", allowed))


DOCUMENTED: Mapping[str, tuple[str, str]] = {
    OWN: (f"https://{HOST}", "Host checked"),
    FOREIGN: ("dynamic/redirect.example", "Unverified"),
    LOOPBACK: ("dynamic/loopback", "Unverified"),
}


@pytest.mark.attack("document-foreign-redirect")
@pytest.mark.parametrize("uri", DOCUMENTED)
def test_a_document_names_log_ins_that_end_at_its_origin(play: Play, uri: str) -> None:
    """Elsewhere it is admitted as unverified: on the page, in the name, in the record."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, *DOCUMENTED, client_name="Claude")
        client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=uri, resource=NOTES)
        name, badge = DOCUMENTED[uri]
        page = (await client.authorize()).text
        assert f'<p class="badge">{badge}</p>' in page
        assert (f"It says that it is the application of {HOST}." in page) == (uri != OWN)
        log_in = await record(found, (await client.tokens())["access_token"])
        assert (log_in.client, log_in.redirect_uri) == (name, uri)
        assert log_in.document_host == HOST

    play(scene)


def test_a_fetched_document_is_an_event_of_its_log_in(play: Play) -> None:
    """One line for each fetch, tied to the log-in that it was for, and none where the document is
    remembered; where it cannot be had the line says why.
    """

    async def scene(found: FrontDoorStage) -> None:
        publish(found, OWN)
        client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=OWN, resource=NOTES)
        await client.tokens()
        await client.tokens()
        lines = [each for each in found.lines() if each["event"] == "log_in"]
        (fetched,) = (each for each in lines if each["step"] == "client_document")
        authorized = next(each for each in lines if each["step"] == "authorize")
        assert lines.index(fetched) < lines.index(authorized)
        assert (fetched["outcome"], fetched["client"]) == ("ok", DOCUMENT)
        for key in ("attempt", "client_key", "network", "request_id"):
            assert fetched[key] == authorized[key]
        found.built._documents._known.clear()
        publish(found)
        await client.authorize()
        last = [each for each in found.lines() if each.get("step") == "client_document"][-1]
        assert (last["outcome"], last["attempt"]) == ("unusable", fetched["attempt"])

    play(scene)


@pytest.mark.attack("document-foreign-redirect")
def test_a_refresh_token_of_one_end_is_not_made_one_of_another(play: Play) -> None:
    """The document drops nothing and adds its own origin: the log-in stays the one that it was."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, LOOPBACK)
        client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=LOOPBACK, resource=NOTES)
        tokens = await client.tokens()
        found.built._documents._known.clear()
        publish(found, OWN)
        again = (await client.refresh(tokens["refresh_token"])).json()
        log_in = await record(found, again["access_token"])
        assert (log_in.client, log_in.ends_at) == ("dynamic/loopback", "loopback")

    play(scene)


UNREACHABLE: Mapping[DocumentFault, tuple[int, str]] = {
    DocumentFault.NO_ADDRESS: (503, "its host has no address"),
    DocumentFault.UNREACHABLE: (503, "its host cannot be reached"),
    DocumentFault.LATE: (503, "its host takes too long"),
    DocumentFault.TLS: (503, "no certificate that is trusted"),
    DocumentFault.SERVER_FAULT: (503, "overrun or broken"),
    DocumentFault.NOT_FOUND: (400, "it is not there"),
    DocumentFault.REDIRECT: (400, "a redirect"),
    DocumentFault.WRONG_TYPE: (400, "its content type is not JSON"),
    DocumentFault.TOO_LARGE: (400, "longer than 64 KiB"),
    DocumentFault.PRIVATE_ADDRESS: (400, "not of the open Internet"),
}


@pytest.mark.parametrize("fault", UNREACHABLE)
def test_a_document_that_cannot_be_had_is_no_unknown_client(
    play: Play, fault: DocumentFault
) -> None:
    """The page says which of these it is, and so does the log; nobody is sent anywhere."""

    async def scene(found: FrontDoorStage) -> None:
        async def fetch(url: str, host: str) -> Fetched:
            raise FetchError(fault)

        found.built._documents._fetch = fetch
        client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=OWN, resource=NOTES)
        answer = await client.authorize()
        status, words = UNREACHABLE[fault]
        assert answer.status_code == status
        assert words in answer.text
        assert "is not known" not in answer.text
        (line,) = [each for each in found.lines() if each.get("outcome") == "no_document"]
        assert line["detail"].startswith(f"{fault.value}: ")
        assert line["client"] == DOCUMENT
        unknown = await client.authorize(client_id="nobody")
        assert "is not known" in unknown.text

    play(scene)


def test_a_document_of_no_use_says_why(play: Play) -> None:
    """There, and wrong: the reason is on the page, and nothing that it says."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, OWN, client_secret="s3cret")
        client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=OWN, resource=NOTES)
        answer = await client.authorize()
        assert answer.status_code == 400
        assert "client_secret, which everybody can read" in answer.text
        assert "s3cret" not in answer.text

    play(scene)


def test_a_client_that_names_no_server_is_told_which_there_are(play: Play) -> None:
    """The TypeScript client 1.12 sends no `resource`: page and answer list the servers."""

    async def scene(found: FrontDoorStage) -> None:
        away = await come(found, EVIL)
        here = await come(found, LOOPBACK)
        page = await away.authorize(resource=None)
        sent = await here.authorize(resource=None)
        told = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
        assert page.status_code == 400
        assert told["error"] == "invalid_target"
        for words in (page.text, told["error_description"]):
            assert "resource is missing" in words
            assert all(server in words for server in (NOTES, FILES))

    play(scene)


# --- what a version before has written ---------------------------------------------------------


async def of_before(found: FrontDoorStage, client: FrontDoorClient, name: str) -> str:
    """A refresh token of before the end of a log-in was kept in it, under a name of then."""
    tokens = await client.tokens()
    built = found.built
    token = open_refresh(built.sealer, tokens["refresh_token"], built.grants.issuer)
    text = seal_refresh(built.sealer, replace(token, redirect_uri="", client=name), 3600)
    log_in = await record(found, tokens["access_token"])
    held = await built.grants.find(log_in.subject, log_in.grant)
    assert held is not None
    grant = replace(held.grant, refresh=digest(text), redirect_uri="", ends_at="")
    found.valkey.command("HSET", built.grants.key(log_in.subject), grant.id, encode(grant))
    return text


@pytest.mark.parametrize(
    ("uri", "others", "name", "status"),
    [
        (LOOPBACK, (), "dynamic/loopback", 200),
        (LOOPBACK, ("http://localhost/cb",), "dynamic/loopback", 200),
        (EVIL, (), "dynamic/evil.example", 200),
        (EVIL, (FOREIGN,), "dynamic/several", 400),
        (EVIL, (LOOPBACK,), "dynamic/loopback", 400),
    ],
)
def test_a_log_in_of_before_goes_on_where_its_name_is_sure(
    play: Play, uri: str, others: tuple[str, ...], name: str, status: int
) -> None:
    """Where the client could end it in one place only; else the person logs in once more."""

    async def scene(found: FrontDoorStage) -> None:
        client = await come(found, uri, *others)
        answer = await client.refresh(await of_before(found, client, name))
        assert answer.status_code == status
        if status == 200:
            log_in = await record(found, answer.json()["access_token"])
            assert (log_in.client, log_in.redirect_uri) == (name, uri)

    play(scene)


@pytest.mark.attack("document-foreign-redirect")
def test_a_log_in_of_before_is_nowhere_verified_by_its_name(play: Play) -> None:
    """A document whose log-in ended on loopback had its host's name then, and has it no more."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, LOOPBACK, OWN)
        client = FrontDoorClient(found, client_id=DOCUMENT, redirect_uri=LOOPBACK, resource=NOTES)
        text = await of_before(found, client, f"https://{HOST}")
        assert (await client.refresh(text)).json()["error"] == "invalid_grant"

    play(scene)


@pytest.mark.attack("named-like-another")
def test_whoever_logs_in_is_known_before_anything_is_issued(play: Play) -> None:
    """By the ID token alone, whatever client and page it was for: each has a record that operators
    find the person by, and it is there when the code is.
    """

    async def scene(found: FrontDoorStage) -> None:
        built = found.built
        client = await come(found, LOOPBACK)
        await client.log_in()
        (known,) = await known_people(built.people, built.grants, built.records)
        assert (known.account, known.log_ins) == ("john", 0)
        await client.tokens()
        (known,) = await known_people(built.people, built.grants, built.records)
        assert known.log_ins == 1
        assert find_person("john", [known]) == find_person(known.subject, [known]) == known

    play(scene)


@pytest.mark.parametrize("email", [True, False])
def test_e_mail_addresses_are_asked_for_where_that_is_configured(play: Play, email: bool) -> None:
    """Only then does a pushed request have the scope, whatever its client asks for."""
    change = "front_door: {email_addresses: true, " if email else "front_door: {"

    async def scene(found: FrontDoorStage) -> None:
        client = await come(found, LOOPBACK)
        with suppress(AssertionError):  # the stand-in's client has no such scope
            await client.log_in(scope="email mcp:tools")
        bodies = [parse_qsl(each.content.decode()) for each in found.upstream.sent]
        (scopes,) = [dict(body)["scope"].split() for body in bodies if "scope" in dict(body)]
        assert ("email" in scopes) is email

    play(scene, lambda text: text.replace("front_door: {{", "{").replace("front_door: {", change))
