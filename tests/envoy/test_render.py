"""The rendered configuration as values: current, deterministic, accepted by Envoy, safe.

Reading what was rendered takes about a second of CPU, so it is done once for a text.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.config.compile import upstream_digest
from authz.config.endpoints import Tcp, Unix
from authz.config.load import Settings, load
from authz.config.value_types import Rate
from authz.envoy.files import (
    CERTIFICATE_FILE,
    CLUSTERS_FILE,
    LISTENERS_FILE,
    RENDERED_FILE,
    ROUTES_FILE,
)
from authz.envoy.render import Topology, fragment, render, render_watched
from authz.envoy.render.rate_limits import refill
from authz.envoy.render.routes import gateway_routes
from authz.envoy.render.settings import envoy_settings, topology_of
from tests.support.edge import settings
from tests.support.envoy import validate

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "envoy"
SMALLEST = """
issuer: {url: https://auth.example.com}
gateway: {url: https://mcp.example.com}
servers: {files: {upstream: http://files:8000/mcp}}
"""
# Words that a reader of YAML 1.1 takes for something else than text.
WORDS = """
issuer: {url: https://auth.example.com}
gateway: {url: https://mcp.example.com, listen: "[::]:8443", address_rate: 1/day}
servers:
  "yes": {upstream: http://on/off}
  "null": {upstream: http://127.0.0.1:8000/mcp}
  "1e3": {upstream: "http://[::1]:8000"}
  "0x1f": {upstream: https://10.0.0.1/mcp}
  "12": {upstream: https://files.example.com/mcp}
  "true": {upstream: http://true:1, scopes: ["yes", "%REQ(COOKIE)%", "a'b"]}
"""
PORTAL_BELOW = """
issuer: {url: https://example.com:9443/auth, internal: https://authelia:9091, serve: true}
gateway:
  url: https://example.com:8443
  http_listen: 0.0.0.0:8080
  tls: {certificate: /run/tls.crt, key: /run/tls.key, minimum: 1.2}
servers: {files: {upstream: http://files:8000}}
"""
PAGES = f"""{PORTAL_BELOW}
front_door: {{key_file: /k.pem}}
pages:
  grafana: {{host: grafana.example.com, upstream: http://grafana:3000, groups: [admins]}}
  prom: {{host: ops.example.com, path: /prom, upstream: https://prom:9090, second_factor: totp}}
  alerts: {{host: ops.example.com, path: /alerts, upstream: http://a:1, socket: /run/a.sock}}
"""
FRONT_DOOR = SMALLEST + "front_door: {key_file: /k.pem}\nservice: {pages: '127.0.0.1:8090'}\n"
STEP_UPS = "front_door: {key_file: /k.pem}\n" + SMALLEST.replace("com}", "com, login: direct}", 1)
SOCKETS = """
issuer: {url: https://auth.example.com}
gateway: {url: https://mcp.example.com}
servers:
  files: {upstream: http://localhost:8000/mcp, socket: /run/files/mcp.sock}
  notes: {upstream: https://notes.example.com, socket: /run/notes%2F.sock}
"""


@cache
def example() -> Settings:
    return load(EXAMPLE / "authz.yaml", {}, secrets=False)


SOMEWHERE = Topology(
    authz=(Unix("/run/a"), Tcp("authz", 9000)), admin="/somewhere/admin", folder="/somewhere"
)


def configuration(text: str) -> Settings:
    """Return the settings of a text; of the example where it is empty."""
    return settings(text) if text else example()


@cache
def rendered_files(text: str) -> Mapping[str, str]:
    return render(configuration(text), SOMEWHERE)


def rendered(text: str) -> str:
    """Return the envoy.yaml of a configuration; of the example where the text is empty."""
    return rendered_files(text)["envoy.yaml"]


@cache
def document(text: str) -> Any:
    """Return what stands in that envoy.yaml; not to be changed."""
    return read(rendered(text))


def read(text: str) -> Any:
    return YAML(typ="safe").load(text)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping inside a document."""
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value:
        if isinstance(member, dict | list):
            yield from nodes(member)


def routes(text: str) -> list[dict[str, Any]]:
    """Return the routes of a configuration."""
    found = [node for node in nodes(document(text)) if "match" in node and "name" in node]
    assert found
    return found


def test_the_example_is_current() -> None:
    """The files in envoy/ are what their settings render to."""
    files = render(example(), Topology())

    assert files == {name: (EXAMPLE / name).read_text() for name in files}
    assert not (EXAMPLE / "__init__.py").exists()  # the wheel of Envoy is the package `envoy`


@pytest.mark.parametrize(
    "text",
    ["", SMALLEST, WORDS, PORTAL_BELOW, FRONT_DOOR, STEP_UPS, SOCKETS, PAGES],
    ids=["example", "smallest", "words", "portal", "front door", "step-ups", "sockets", "pages"],
)
def test_envoy_accepts_what_is_rendered(text: str, tmp_path: Path) -> None:
    """`envoy --mode validate` has no objection."""
    for name, content in rendered_files(text).items():
        (tmp_path / name).write_text(content.replace("/somewhere", str(tmp_path)))

    assert validate(tmp_path / "envoy.yaml") == ""


@pytest.mark.parametrize("text", [WORDS, FRONT_DOOR], ids=["words", "front door"])
def test_the_same_settings_give_the_same_text(text: str) -> None:
    """Rendering twice makes no difference; of the example, test_the_example_is_current says so."""
    assert render(configuration(text), SOMEWHERE) == rendered_files(text)


def clusters(text: str) -> dict[str, Any]:
    found = document(text)["static_resources"]["clusters"]
    return {cluster["name"]: cluster for cluster in found}


def test_without_a_front_door_nothing_leads_to_pages() -> None:
    """Neither a cluster nor a route is there for them, and registration is refused in words."""
    names = {route["name"] for route in routes(SMALLEST)}

    assert set(clusters(SMALLEST)) == {"authz", cluster_of(SMALLEST, "files")}
    assert not any(name.startswith(("pages", "server-metadata")) for name in names)
    assert "register" in names


def test_where_clients_log_in_at_the_issuer_the_pages_are_for_step_ups() -> None:
    """Documents name the issuer, nothing of an authorization server is there, step-ups are."""
    text = rendered(STEP_UPS)
    names = [route["name"] for route in routes(STEP_UPS)]

    assert [name for name in names if name.startswith("pages")] == ["pages"]
    assert "server-metadata" not in names
    assert "register" in names
    assert '"authorization_servers": ["https://auth.example.com"]' in text.replace("\\", "")


def test_the_pages_are_where_settings_or_topology_say() -> None:
    """`authz up` has a socket of its own for them."""
    where = Topology(pages=(Unix("/state/pages.sock"),))
    text = render(settings(FRONT_DOOR), where)["envoy.yaml"]
    (pages,) = (
        node for node in nodes(read(text)) if node.get("name") == "pages" and "type" in node
    )

    assert "/state/pages.sock" in str(pages)
    assert "8090" in str(clusters(FRONT_DOOR)["pages"])
    assert "http_protocol_options" in str(pages)  # HTTP/1.1


def test_a_server_is_where_its_socket_is() -> None:
    """Envoy connects to the socket; Host, path and TLS are those of the URL."""
    names = {name: cluster_of(SOCKETS, name) for name in ("files", "notes")}
    every = clusters(SOCKETS)
    found = {name: every[names[name]] for name in names}
    for name, path in (("files", "/run/files/mcp.sock"), ("notes", "/run/notes%2F.sock")):
        assert pipes(found[name]) == [{"path": path}]
        assert "socket_address" not in str(found[name])
    assert "transport_socket" not in found["files"]
    assert "notes.example.com" in str(found["notes"]["transport_socket"])
    for route in (each for each in routes(SOCKETS) if each["name"] == "mcp:files"):
        assert route["route"]["host_rewrite_literal"] == "localhost:8000"
        assert route["route"]["prefix_rewrite"] == "/mcp"


def test_a_topology_says_it_better_than_the_settings() -> None:
    """Whoever renders for another place, `authz up` for one, knows where the server is there."""
    where = Topology(upstreams={"files": Unix("/state/files")})
    text = render(settings(SOCKETS), where)["envoy.yaml"]

    assert "/state/files" in text
    assert "/run/files/mcp.sock" not in text


def cluster_of(text: str, server: str) -> str:
    return f"mcp:{server}:{upstream_digest(configuration(text).config.servers[server])}"


def pipes(cluster: dict[str, Any]) -> list[Any]:
    return [node["pipe"] for node in nodes(cluster) if "pipe" in node]


@pytest.mark.parametrize("text", [SMALLEST, WORDS, PORTAL_BELOW, FRONT_DOOR, SOCKETS, PAGES])
def test_nothing_is_rendered_that_lets_a_request_pass_unjudged(text: str) -> None:
    """The settings of ext_authz by which others were bypassed stand as they must."""
    every = list(nodes(document(text)))
    (ext_authz,) = (node for node in every if "transport_api_version" in node)

    assert not {"failure_mode_allow", "filter_enabled", "clear_route_cache", "shadow_mode"} & set(
        ext_authz
    )
    assert ext_authz["with_request_body"] == {"max_request_bytes": 1 << 20, "pack_as_bytes": True}
    assert ext_authz["validate_mutations"] is ext_authz["encode_raw_headers"] is True
    assert ext_authz["status_on_error"] == {"code": "ServiceUnavailable"}
    assert ext_authz["grpc_service"]["timeout"] == "2.100s"
    assert not any("with_request_body" in node for node in every if node is not ext_authz)
    assert not any("retry_policy" in node or "num_retries" in node for node in every)


@pytest.mark.parametrize("text", [SMALLEST, WORDS])
def test_a_route_to_a_server_is_exact_and_names_it(text: str) -> None:
    """Its path with and without a last slash, compared as a whole, for every method."""
    every, servers = routes(text), settings(text).config.servers

    for name in servers:
        own = [route for route in every if route["name"] == f"mcp:{name}"]
        assert [route["match"] for route in own] == [{"path": f"/{name}"}, {"path": f"/{name}/"}]
        for route in own:
            told = {"server": name, "upstream": upstream_digest(servers[name])}
            assert checked(route) == {"context_extensions": told}
            # Another upstream is another cluster; its statistics keep their name.
            cluster = clusters(text)[route["route"]["cluster"]]
            assert cluster["name"] == f"mcp:{name}:{told['upstream']}"
            assert cluster["alt_stat_name"] == f"mcp:{name}"
    assert len([r for r in every if "cluster" in r.get("route", {})]) == 4 * len(servers)


def checked(route: dict[str, Any]) -> Any:
    return route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]


def test_before_the_route_to_a_server_are_those_that_wait_for_no_body() -> None:
    """Without a token nobody's body is read, and nothing is reached; a GET has none."""
    every = routes(SMALLEST)
    own = [r for r in every if r["match"].get("path") == "/files" and "page" not in r["name"]]
    names = [route["name"] for route in own]

    assert names == ["data-only:files", "no-token:files", "mcp:files:bodiless", "mcp:files"]
    assert own.pop(0)["direct_response"]["status"] == 403
    assert checked(own[0])["disable_request_body_buffering"] is True
    assert "cluster" not in own[0]["route"]
    for route in own[1:]:
        assert "disable_request_body_buffering" not in checked(route)
    buffers = [r["typed_per_filter_config"].get("envoy.filters.http.buffer") for r in own]
    assert [each is not None and each["buffer"] for each in buffers] == [
        False, {"max_request_bytes": 1}, False,
    ]  # fmt: skip


def test_streams_end_by_their_maximum_and_by_nothing_else() -> None:
    """Envoy's own 15 s and 5 min would cut the event streams of MCP."""
    text = SMALLEST.replace("com}\ns", "com, max_stream: 90s}\ns")
    mcp = [route for route in routes(text) if "mcp:" in route["name"]]

    for action in (route["route"] for route in mcp):
        assert action["timeout"] == action["idle_timeout"] == "0s"
        assert action["max_stream_duration"] == {"max_stream_duration": "90s"}


def test_what_one_client_can_use_is_bounded() -> None:
    """Connections, streams, headers and waiting times, as the settings or safe defaults say."""
    limits = "com, max_connections: 77, max_concurrent_streams: 7, max_body: 2KiB}\ns"
    found = document(SMALLEST.replace("com}\ns", limits))
    (manager,) = (node for node in nodes(found) if "request_headers_timeout" in node)
    monitors = {
        m["name"]: m["typed_config"] for m in found["overload_manager"]["resource_monitors"]
    }

    assert manager["http2_protocol_options"]["max_concurrent_streams"] == 7
    assert manager["request_headers_timeout"] == "5s"
    assert manager["request_timeout"] == "15s"
    assert manager["common_http_protocol_options"]["idle_timeout"] == "60s"
    connections = monitors["envoy.resource_monitors.global_downstream_max_connections"]
    assert connections["max_active_downstream_connections"] == "77"
    assert monitors["envoy.resource_monitors.fixed_heap"]["max_heap_size_bytes"] == str(1 << 30)
    assert [n for n in nodes(found) if n.get("max_request_bytes") == 2048]


def test_who_connects_and_says_nothing_is_not_kept() -> None:
    """A handshake has five seconds; clusters have more connections than requests."""
    (chain,) = (node for node in nodes(document("")) if "transport_socket_connect_timeout" in node)
    breakers = [node for node in nodes(document("")) if "max_requests" in node]

    assert chain["transport_socket_connect_timeout"] == "5s"
    assert breakers
    assert all(each["max_connections"] > each["max_requests"] for each in breakers)


def test_the_only_server_has_its_document_at_the_root_too() -> None:
    """With one server the root document is true for all that is there."""
    documents = [route for route in routes(SMALLEST) if route["name"] == "metadata:files"]
    suffixed, slashed, root = (document["match"]["path"] for document in documents)

    assert suffixed == f"{root}/files" == "/.well-known/oauth-protected-resource/files"
    assert slashed == f"{suffixed}/"
    texts = [document["direct_response"]["body"]["inline_string"] for document in documents]
    assert texts[0] == texts[2]
    assert json.loads(texts[1])["resource"] == f"{json.loads(texts[0])['resource']}/"


@pytest.mark.parametrize("text", [SMALLEST, WORDS, PORTAL_BELOW, FRONT_DOOR, STEP_UPS])
def test_a_page_says_what_the_address_is(text: str) -> None:
    """The link to log-ins is there where there are any; the hash is that of its style."""
    pages = [route for route in routes(text) if route["name"].partition(":")[0] == "page"]

    assert pages[0]["match"]["path"] == "/"
    for page in pages:
        body = page["direct_response"]["body"]["inline_string"]
        assert ("/authz/log-ins" in body) == (text == FRONT_DOOR)
        style = body.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policies = [h["header"]["value"] for h in page["response_headers_to_add"]
                    if h["header"]["key"] == "content-security-policy"]  # fmt: skip
        assert f"style-src 'sha256-{digest}'" in policies[0]


OF_THE_PORTAL = {"issuer", "issuer:passwords"}
ONE_NAME = """
issuer: {url: https://mcp.example.com/auth, internal: http://authelia:9091, serve: true}
gateway: {url: https://mcp.example.com}
front_door: {key_file: /k.pem}
servers: {files: {upstream: http://files:8000/mcp}, authfiles: {upstream: http://files:8000/mcp}}
"""
LUA = "envoy.filters.http.lua"


@pytest.mark.attack("one-name", "open-routes")
def test_under_one_name_nothing_but_pages_is_open() -> None:
    """Every request that may reach a server is put to authz; the pages of both parties, whose
    cookies are kept apart, are all that is reached without.
    """
    asked, open_to = set[str](), dict[str, bool]()
    for route in routes(ONE_NAME):
        settings = route["typed_per_filter_config"]
        if "route" not in route:
            assert "direct_response" in route
        elif settings["envoy.filters.http.ext_authz"].get("disabled"):
            cluster = route["route"]["cluster"]
            open_to[cluster] = open_to.get(cluster, True) and LUA in settings
        else:
            asked.add(route["route"].get("cluster", "none").partition(":")[0])
            assert LUA not in settings
            assert "cookie" in route.get("request_headers_to_remove", ["cookie"])
    assert open_to == dict.fromkeys({"pages", *OF_THE_PORTAL}, True)
    assert asked == {"mcp", "none"}


def test_cookies_are_looked_at_where_both_have_one_host_alone() -> None:
    """On another port too; a portal of another host never gets ours."""
    for issuer, shared in (
        ("https://mcp.example.com/auth", True), ("https://mcp.example.com:8443", True),
        ("https://auth.example.com", False), ("https://auth.example.com/auth", False),
    ):  # fmt: skip
        text = ONE_NAME.replace("https://mcp.example.com/auth", issuer)
        named = [r["name"] for r in routes(text) if LUA in r.get("typed_per_filter_config", {})]
        assert bool(named) == shared
        assert {"pages", "portal", "portal:passwords"} <= {*named} or not shared


def test_an_issuer_that_has_its_path_itself_gets_it() -> None:
    """The internal address has no path; authz asks for the public one there, too."""
    text = ONE_NAME.replace("https://mcp.example.com/auth", "https://auth.example.com/auth")
    for each in (text, ONE_NAME, PORTAL_BELOW):
        (portal,) = (route for route in routes(each) if route["name"] == "portal")
        assert portal["match"] == {"path_separated_prefix": "/auth"}
        assert "regex_rewrite" not in portal["route"]


PROGRAMS = ("introspection", "revocation", "pushed-authorization-request", "device-authorization")
DIRECT = "redirect_uris: [http://127.0.0.1/callback]"


@pytest.mark.parametrize(
    ("door", "client", "said", "closed"),
    [
        (True, "", "", ("token", *PROGRAMS)),
        (True, DIRECT, "", ("token", *PROGRAMS)),
        (True, "machine: true", "", PROGRAMS),
        (True, f"login: direct, {DIRECT}", "", ()),
        (True, "", "login: direct", ()),
        (False, "", "", ()),
        (True, "", "serve_endpoints: true", ()),
        (True, f"login: direct, {DIRECT}", "serve_endpoints: false", ("token", *PROGRAMS)),
        (False, "", "serve_endpoints: false", ("token", *PROGRAMS)),
    ],
)
def test_the_issuers_endpoints_are_open_to_those_who_use_them(
    door: bool, client: str, said: str, closed: tuple[str, ...]
) -> None:
    """To clients that log in at the issuer, and its token endpoint to machines; else to nobody."""
    text = (
        "issuer: {url: https://auth.example.test, internal: http://issuer:9091, serve: true"
        + (f", {said}}}\n" if said else "}\n")
        + "gateway: {url: https://mcp.example.test}\n"
        + "servers: {files: {upstream: http://files:8000/mcp}}\n"
        + ("front_door: {key_file: /k.pem}\n" if door else "")
        + (f"clients: {{one: {{{client}}}}}\n" if client else "")
    )
    found = envoy_settings(settings(text), Topology())

    assert found.portal is not None
    assert found.portal.closed == closed
    names = [route.name for host in gateway_routes(found).virtual_hosts for route in host.routes]
    assert [name for name in names if name.startswith("closed:")] == [
        f"closed:{name}" for name in (*closed, "encoded") if closed
    ]


def test_the_fragment_is_made_of_the_same_pieces(tmp_path: Path) -> None:
    """Filters, host and clusters are those of the whole, and Envoy takes them from elsewhere."""
    where = Topology(admin=f"{tmp_path}/admin", folder=str(tmp_path))
    whole = read(render(example(), where)["envoy.yaml"])
    pieces = read(fragment(example(), where))
    manager = whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    config = manager["typed_config"]

    assert config["http_filters"][:-1] == pieces["http_filters"]
    assert config["route_config"]["virtual_hosts"][0] == pieces["virtual_host"]
    assert [
        c for c in whole["static_resources"]["clusters"] if c["name"] not in OF_THE_PORTAL
    ] == pieces["clusters"]


@given(st.integers(1, 10**9), st.integers(1, 31 * 86400))
def test_a_bucket_is_never_refilled_faster_than_its_rate(quota: int, window: int) -> None:
    """Envoy's smallest step is 50 ms; rounding never gives more."""
    tokens, step = refill(Rate(quota, window))

    assert tokens >= 1
    assert step >= 0.05
    assert tokens * window <= quota * step * (1 + 1e-9)


WATCHED = replace(SOMEWHERE, stats="/somewhere/stats")
TWO = PORTAL_BELOW.replace(
    "8000}}", "8000}, notes: {upstream: http://notes:8000/mcp, tools: {read_*: {}}}}"
)


@cache
def watched(text: str) -> Mapping[str, str]:
    return render_watched(configuration(text), WATCHED)


def test_watched_files_say_what_the_one_file_says() -> None:
    """Clusters, routes and listeners are those of the static configuration, but for the filter."""
    one = document(PAGES)["static_resources"]
    found = {name: read(text)["resources"] for name, text in watched(PAGES).items()
             if name in {CLUSTERS_FILE, LISTENERS_FILE, ROUTES_FILE}}  # fmt: skip
    for resources in found.values():
        for each in resources:
            assert each.pop("@type").startswith("type.googleapis.com/envoy.config.")

    assert found[CLUSTERS_FILE] == one["clusters"]
    managers = [
        [node["filter_chains"][0]["filters"][0]["typed_config"] for node in listeners]
        for listeners in (one["listeners"], found[LISTENERS_FILE])
    ]
    (static, redirect), (dynamic, other) = managers
    assert found[ROUTES_FILE] == [static.pop("route_config")]
    assert dynamic.pop("rds")["route_config_name"] == "gateway"
    assert redirect == other
    names = [each["name"] for each in dynamic.pop("http_filters")]
    assert [name for name in names if "composite" not in name] == [
        each["name"] for each in static.pop("http_filters")
    ]
    assert len([name for name in names if "composite" in name]) == 1
    assert dynamic == static


@pytest.mark.parametrize("plane", ["envoy", "envoy_gateway", "agentgateway"])
def test_lists_go_to_a_service_that_filters_them(plane: str) -> None:
    """The filter is rendered where the service takes its streams, and nowhere else."""
    tools = SMALLEST.replace("8000/mcp}", "8000/mcp, tools: {read_*: {}}}")
    text = f"{tools}service: {{data_plane: {plane}}}\n"
    found = settings(text)

    assert found.filters_lists == (plane == "envoy")
    for files in (render(found, Topology()), render_watched(found, WATCHED)):
        assert (
            any("filters.http.composite" in each for each in files.values()) == found.filters_lists
        )


def test_a_server_is_in_clusters_and_routes_alone() -> None:
    """Another server changes neither listeners, which would cut streams, nor what needs a restart.

    Its lists are filtered here, and those of the first are not.
    """
    before, after = watched(PORTAL_BELOW), watched(TWO)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {CLUSTERS_FILE, ROUTES_FILE, RENDERED_FILE}
    assert CERTIFICATE_FILE in before


def test_what_was_rendered_says_from_what() -> None:
    """Whoever renders again finds where the parts are."""
    where = replace(
        WATCHED,
        upstreams={"files": Unix("/state/files"), "notes": Tcp("::1", 9)},
        issuer=Unix("/state/issuer"),
        replicas=(Unix("/run/authz/replica-2.sock"), Tcp("authz-b", 9001)),
        scrape=Tcp("0.0.0.0", 9466),
        drain=Tcp("127.0.0.1", 9467),
    )
    text = render_watched(settings(SMALLEST), where)[RENDERED_FILE]
    assert topology_of(text) == where
    assert topology_of(watched("")[RENDERED_FILE]) == WATCHED


def test_a_release_before_replicas_rendered_none() -> None:
    """Its `rendered.json` is read as ever; so is one that knew a single address of the pages."""
    said = json.loads(watched("")[RENDERED_FILE])
    for name in ("replicas", "scrape", "drain"):
        del said["topology"][name]
    for text, pages in ((None, ()), ("unix:/p", (Unix("/p"),))):
        said["topology"]["pages"] = text
        assert topology_of(json.dumps(said)) == replace(WATCHED, pages=pages)
    said["topology"]["pages"] = []
    assert topology_of(json.dumps(said)) == WATCHED


@pytest.mark.parametrize(
    ("workers", "replica", "wanted"),
    [
        (1, Unix("/run/authz/b.sock"), ["/run/authz/check.sock", "/run/authz/b.sock"]),
        (2, Unix("/run/authz/b.sock"), ["/run/authz/check-0.sock", "/run/authz/check-1.sock",
                                        "/run/authz/b-0.sock", "/run/authz/b-1.sock"]),
    ],
)  # fmt: skip
def test_every_worker_of_every_replica_is_asked(
    workers: int, replica: Unix, wanted: list[str]
) -> None:
    """Each has its health check, and one that is away is asked only where all are."""
    service = f"service: {{check: 'unix:/run/authz/check.sock', workers: {workers}}}\n"
    where = replace(SOMEWHERE, authz=(), replicas=(replica,))
    text = render(settings(SMALLEST + service), where)["envoy.yaml"]
    clusters = YAML(typ="safe").load(text)["static_resources"]["clusters"]
    (cluster,) = (each for each in clusters if each["name"] == "authz")
    (locality,) = cluster["load_assignment"]["endpoints"]
    addresses = [each["endpoint"]["address"] for each in locality["lb_endpoints"]]

    assert [each["pipe"]["path"] for each in addresses] == wanted
    assert cluster["health_checks"]
    assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 1}
    assert cluster["outlier_detection"]["consecutive_local_origin_failure"] == 1


def test_replicas_by_name_are_resolved() -> None:
    """All addresses of each name (STRICT_DNS), as a headless service of Kubernetes has them."""
    where = replace(SOMEWHERE, authz=(), replicas=(Tcp("authz-b", 9001),))
    text = render(settings(SMALLEST + "service: {check: '127.0.0.1:9001'}\n"), where)["envoy.yaml"]
    clusters = YAML(typ="safe").load(text)["static_resources"]["clusters"]
    (cluster,) = (each for each in clusters if each["name"] == "authz")

    assert (cluster["type"], cluster["dns_lookup_family"]) == ("STRICT_DNS", "ALL")


def test_one_name_may_be_several_replicas() -> None:
    """Of Check and of the pages: one that cannot be reached is left out, whatever the others say.

    No answer of a page ejects its replica: 503 says that Authelia is away, for each of them.
    """
    where = replace(SOMEWHERE, authz=(Tcp("authz", 9001),), pages=(Tcp("pages", 9002),))
    door = "front_door: {key_file: /k.pem}\n"
    for place in (where, replace(where, pages=(Tcp("10.0.0.1", 9002), Tcp("10.0.0.2", 9002)))):
        text = render(settings(SMALLEST + door), place)["envoy.yaml"]
        clusters = YAML(typ="safe").load(text)["static_resources"]["clusters"]
        found = {each["name"]: each for each in clusters}
        assert found["authz"]["outlier_detection"]["consecutive_local_origin_failure"] == 1
        pages = found["pages"]["outlier_detection"]
        assert pages["split_external_local_origin_errors"] is True
        assert pages["enforcing_consecutive_5xx"] == 0
        assert pages["enforcing_consecutive_gateway_failure"] == 0
        assert "health_checks" not in found["pages"]
    alone = render(settings(SMALLEST + door), replace(where, pages=(Unix("/p"),)))["envoy.yaml"]
    clusters = YAML(typ="safe").load(alone)["static_resources"]["clusters"]
    assert all("outlier_detection" not in each for each in clusters if each["name"] == "pages")


def test_what_is_on_the_network_of_the_admin_interface() -> None:
    """Two paths by GET for Prometheus and probes, one by POST before a stop; neither by default."""
    where = replace(WATCHED, scrape=Tcp("0.0.0.0", 9466), drain=Tcp("127.0.0.1", 9467))
    text = render_watched(settings(SMALLEST), where)["envoy.yaml"]
    shown = dict[str, list[tuple[str, str]]]()
    for listener in YAML(typ="safe").load(text)["static_resources"]["listeners"]:
        (chain,) = listener["filter_chains"]
        bound, manager = (each["typed_config"] for each in chain["filters"])
        assert int(bound["max_connections"]) <= 64
        (host,) = manager["route_config"]["virtual_hosts"]
        shown[listener["name"]] = [
            (each["match"]["path"], each["match"]["headers"][0]["string_match"]["exact"])
            for each in host["routes"]
        ]
    assert shown["scrape"] == [("/stats/prometheus", "GET"), ("/ready", "GET")]
    assert shown["drain"] == [("/healthcheck/fail", "POST")]
    assert "scrape" not in watched("")["envoy.yaml"]


@pytest.mark.parametrize("odd", ["", "[]", "{}", "7", '{"topology": {}}', '{"topology": []}'])
def test_what_nobody_rendered_is_refused(odd: str) -> None:
    """Nothing is rendered for parts that are guessed."""
    with pytest.raises(ValueError, match=r".+"):
        topology_of(odd)
    with pytest.raises(ValueError, match=r".+"):
        topology_of(watched("")[RENDERED_FILE].replace("unix:/run/a", "nowhere"))


@pytest.mark.attack("upstream-authority")
def test_a_private_authority_that_was_not_read_renders_nothing() -> None:
    """Trust in the system's authorities never takes its place."""
    text = SMALLEST.replace("http://files:8000/mcp", "https://files:8443/mcp")
    assert "https://files" in text
    text = text.replace("https://files:8443/mcp", "https://files:8443/mcp, upstream_ca: /ca.crt")
    with pytest.raises(KeyError):
        render(settings(text), Topology())
