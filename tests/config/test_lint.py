"""Rules between values: what is right is not complained of (mistakes.txt has what is wrong)."""

from collections.abc import Callable

import pytest

from authz.config.load import Settings

Complaints = Callable[[str], list[str]]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(
            "  filesystem: {upstream: 'http://x'}\n", id="a longer name is no longer path"
        ),
        pytest.param(
            "  b: {upstream: 'http://x', resource: https://mcp.example.com/files/b, nested: true}",
            id="nested on purpose, said by the inner",
        ),
        pytest.param(
            "    nested: true\n"
            "  b: {upstream: 'http://x', resource: https://mcp.example.com/files/b}",
            id="nested on purpose, said by the outer",
        ),
        pytest.param("    tools: {a: {second_factor: none}}", id="none where the server asks none"),
        pytest.param("    tools: {'*': {scopes: [x]}}", id="a star that asks something"),
        pytest.param(
            "    tools: {t: {cost: 5, also: "
            "[{when: [{argument: /a, range: {above: 5}}], cost: 6}]}}",
            id="a higher cost of some arguments",
        ),
        pytest.param("    tools: {'*': {}, 'delete_*': {}}", id="a star among others"),
        pytest.param("    limits: []\nlimits: [{per: user, rate: 1/day}]", id="limited elsewhere"),
        pytest.param(
            "    limits: [{per: user, rate: 1/day}, {per: user, rate: 1/hour}]",
            id="one counter, two windows",
        ),
        pytest.param("    scopes: [x]\nclients: {a: {}}", id="a client with undeclared scopes"),
        pytest.param("    scopes: [x]", id="no client named"),
        pytest.param(
            "    scopes: [x]\n    tools: {t: {scopes: [y]}}\nclients: {a: {scopes: [x, y]}}",
            id="one client has all",
        ),
        pytest.param(
            "    scopes: [x]\n    machines: [m]\nclients: {m: {machine: true, scopes: [x]}}",
            id="a server for a machine alone",
        ),
        pytest.param(
            "    second_factor: any\nclients: {a: {assurance: totp}}", id="totp is any factor"
        ),
        pytest.param(
            "    second_factor: {method: totp, evidence: [client]}\n"
            "clients: {a: {assurance: totp}, b: {assurance: two_factor}}",
            id="one client answers",
        ),
        pytest.param(
            "service: {check: '127.0.0.1:9464'}\ntelemetry: {metrics: '127.0.0.2:9464'}",
            id="one port, two addresses",
        ),
        pytest.param(
            "telemetry: {metrics: '127.0.0.1:0'}\nservice: {check: '127.0.0.1:0'}",
            id="ports that the system chooses",
        ),
        pytest.param("clients: {a: {redirect_uris: ['http://127.0.0.1/cb']}}", id="loopback"),
    ],
)
def test_not_complained_of(more: str, smallest: str, complaints: Complaints) -> None:
    """What is right, or meant, is silent."""
    assert complaints(f"{smallest}{more}\n") == []


def test_portal_of_its_own(smallest: str, complaints: Complaints) -> None:
    """The portal is served under its own name, or on a port of its own."""
    serve = "  serve: true\n  internal: http://authelia:9091\ngateway:"
    text = smallest.replace("gateway:", serve)

    assert complaints(text) == []
    assert (
        complaints(text.replace("https://auth.example.com", "https://mcp.example.com:9443")) == []
    )


def test_portal_under_the_gateways_name(smallest: str, complaints: Complaints) -> None:
    """One word of a path that is nobody else's: words that begin like another's are other words."""
    serve = "  serve: true\n  internal: http://authelia:9091\ngateway:"
    text = smallest.replace("gateway:", serve)
    for word in ("auth", "a", "authz2", "files2", "fil", "tokens", "9"):
        one = text.replace("https://auth.example.com", f"https://mcp.example.com/{word}")
        assert complaints(one) == []


@pytest.mark.attack("one-name")
@pytest.mark.parametrize(
    "path",
    [
        "", "/authz", "/authorize", "/token", "/revoke", "/register", "/files", "/.well-known",
        "/Auth", "/AUTHZ", "/auth/x", "/auth/authz", "/files/x", "/auth-x", "/auth.x", "/auth~",
        "/..", "/auth/..", "/auth/", "//auth", "/auth%2f", "/auth;x", "/auth?x", "/auth#x", "/%61",
    ],
)  # fmt: skip
def test_portal_under_a_path_of_somebody_else(
    path: str, smallest: str, complaints: Complaints
) -> None:
    """Whatever could be taken for an address of the gateway's or a server's is an error."""
    serve = "  serve: true\n  internal: http://authelia:9091\ngateway:"
    text = smallest.replace("gateway:", serve)

    assert complaints(text) == []
    assert complaints(text.replace("https://auth.example.com", f"'https://mcp.example.com{path}'"))


@pytest.mark.attack("one-name")
@pytest.mark.parametrize("resource", ["auth", "auth/files", "AUTH", "Auth/files"])
def test_a_server_under_the_portals_path(
    resource: str, smallest: str, complaints: Complaints
) -> None:
    """No server is where the portal is, nor below it, whatever the case."""
    serve = "  serve: true\n  internal: http://authelia:9091\ngateway:"
    text = smallest.replace("gateway:", serve)
    text = text.replace("https://auth.example.com", "https://mcp.example.com/auth")

    assert complaints(f"{text}    resource: https://mcp.example.com/{resource}\n") != []
    assert complaints(f"{text}    resource: https://mcp.example.com/authfiles\n") == []


MARKED = "  assurance_claim: mcp_assurance\ngateway:"
INTROSPECTED = "  introspection: {client_id: authz, key_file: /run/secrets/i.pem}\ngateway:"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="asked nowhere"),
        pytest.param("    second_factor: any\n", id="signed and opaque tokens"),
        pytest.param("    tokens: [opaque]\n", id="opaque, and no second factor"),
        pytest.param(
            "    tokens: [opaque]\n    second_factor: {evidence: [step_up]}\nDOOR",
            id="opaque, and evidence of another kind",
        ),
    ],
)
def test_a_marker_is_right(more: str, smallest: str, complaints: Complaints) -> None:
    """With a direct client that has an assurance, and signed tokens where it is to count."""
    text = smallest.replace("gateway:", MARKED).replace("gateway:", INTROSPECTED)
    more = more.replace("DOOR", DOOR)

    assert complaints(f"{text}{more}clients: {{a: {{login: direct, assurance: totp}}}}\n") == []


DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="nobody configured"),
        pytest.param("clients: {default: {scopes: [x]}}", id="narrowed"),
        pytest.param("clients: {c: {redirect_uris: ['http://localhost/cb']}}", id="localhost"),
        pytest.param("clients: {c: {login: direct, assurance: totp}}", id="direct beside it"),
        pytest.param("service: {pages: 'unix:/run/p.sock'}", id="pages elsewhere"),
        pytest.param("clients: {'https': {login: direct}}", id="a name that only begins so"),
    ],
)
def test_a_front_door_is_right(more: str, smallest: str, complaints: Complaints) -> None:
    """With the one section that it needs, the front door is right, and it is the default."""
    assert complaints(f"{smallest}{DOOR}{more}\n") == []


@pytest.mark.parametrize("rule", ["any", "totp", "{max_login_age: 5m}", "{evidence: [login]}"])
def test_a_front_door_answers_every_rule(rule: str, smallest: str, complaints: Complaints) -> None:
    """Log-ins and step-ups answer what asks for a second factor, an age included."""
    assert complaints(f"{smallest}    second_factor: {rule}\n{DOOR}") == []


def test_where_clients_log_in(smallest: str, settings_of: Callable[[str], Settings]) -> None:
    """A client logs in where its entry says, else where the issuer's does, else at the door."""
    clients = "clients: {a: {login: direct}, b: {redirect_uris: ['x:/y']}, default: {scopes: [z]}}"
    config = settings_of(f"{smallest}{DOOR}{clients}").config

    assert [config.login_of(name) for name in config.named] == ["direct", "front_door"]
    assert config.login == "front_door"
    assert config.strangers == config.default_client
    assert settings_of(smallest).config.login == "direct"
    assert settings_of(smallest).config.strangers is None


def test_nobody_is_a_stranger_where_none_can_come(
    smallest: str, settings_of: Callable[[str], Settings]
) -> None:
    """Without registration and documents the configured clients are all there are."""
    door = DOOR.replace("}", ", registration: false, metadata_hosts: []}")

    assert settings_of(f"{smallest}{door}").config.strangers is None
    assert settings_of(f"{smallest}{DOOR}").config.strangers is not None


def test_dead_ends_are_closed(smallest: str, complaints: Complaints) -> None:
    """A machine that is not named at a server lends it no scopes."""
    clients = "clients: {m: {machine: true, scopes: [x]}, a: {scopes: []}}"
    text = f"{smallest}    scopes: [x]\n{clients}"

    assert (
        'authz.yaml:9: servers.files.scopes[0]: no client of this server has the scope "x"; '
        "write a scope that one has, or give it to a client under clients"
    ) in complaints(text)
