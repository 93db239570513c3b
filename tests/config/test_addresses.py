"""Where each worker answers Check."""

import pytest

from authz.config.addresses import worker_addresses
from authz.config.endpoints import Tcp, Unix
from authz.config.load import read
from authz.config.problems import ConfigError, ProblemSeverity

TEXT = """\
issuer: {{url: https://auth.example.test}}
gateway: {{url: https://mcp.example.test}}
redis: {{url: 'redis://127.0.0.1:6379'}}
service: {{check: '{check}', workers: 4}}
servers: {{files: {{upstream: 'http://127.0.0.1:9/mcp'}}}}
"""


def test_one_worker_has_the_address_itself() -> None:
    """What stands in authz.yaml is what is listened on, unchanged."""
    for check in (Tcp("127.0.0.1", 9001), Unix("/run/authz/check.sock")):
        assert worker_addresses(check, 1) == (check,)


def test_several_have_ports_that_follow() -> None:
    """host:port, port+1, and so on."""
    assert worker_addresses(Tcp("::1", 9001), 3) == (
        Tcp("::1", 9001),
        Tcp("::1", 9002),
        Tcp("::1", 9003),
    )


@pytest.mark.parametrize(
    ("path", "first", "last"),
    [
        ("/x/check.sock", "/x/check-0.sock", "/x/check-1.sock"),
        ("/x.d/check", "/x.d/check-0", "/x.d/check-1"),
        ("/check.a.b", "/check.a-0.b", "/check.a-1.b"),
    ],
)
def test_several_have_sockets_with_numbers(path: str, first: str, last: str) -> None:
    """The number stands before the suffix, in the same folder."""
    assert worker_addresses(Unix(path), 2) == (Unix(first), Unix(last))


@pytest.mark.parametrize("check", ["127.0.0.1:65533", "127.0.0.1:9462"])
def test_ports_that_cannot_be_had_are_told(check: str) -> None:
    """Above 65535, or on the metrics' port: an error at `service.check`."""
    with pytest.raises(ConfigError) as caught:
        read(TEXT.format(check=check), "authz.yaml", {}, secrets=False)

    errors = [each for each in caught.value.problems if each.severity is ProblemSeverity.ERROR]
    assert {each.field for each in errors} == {"service.check"}


def test_the_last_port_there_is() -> None:
    """65532 and three more are ports."""
    read(TEXT.format(check="127.0.0.1:65532"), "authz.yaml", {}, secrets=False)
