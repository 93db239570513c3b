"""Settings that no reload changes are told with the program to start anew."""

import pytest

from authz.config.load import read
from authz.config.model import Config
from authz.config.restarts import restarts_of_pages, restarts_of_serve

_TEXT = """\
issuer: {{url: https://auth.example.com}}
gateway: {{url: https://mcp.example.com, max_body: {max_body}}}
service: {{{service}}}
telemetry: {{{telemetry}}}
servers: {{files: {{upstream: "http://files:8000/mcp", groups: [{group}]}}}}
"""


def _config(
    service: str = "", telemetry: str = "", group: str = "staff", max_body: str = "1MiB"
) -> Config:
    text = _TEXT.format(service=service, telemetry=telemetry, group=group, max_body=max_body)
    return read(text, "authz.yaml", {}, secrets=False).config


@pytest.mark.parametrize(
    ("new", "field", "serve", "pages"),
    [
        (_config(service="workers: 2"), "service.workers", True, False),
        (_config(service="transport: grpcio"), "service.transport", True, False),
        (_config(service="check: 127.0.0.1:9001"), "service.check", True, False),
        (_config(service="pages: 127.0.0.1:9002"), "service.pages", False, True),
        (_config(telemetry="log: json"), "telemetry.log", True, True),
        (_config(max_body="2MiB"), "gateway.max_body", True, False),
        (_config(group="admins"), "", False, False),
    ],
)
def test_each_setting_names_its_program(
    new: Config, field: str, *, serve: bool, pages: bool
) -> None:
    """Nothing is said of what a reload changes."""
    told = restarts_of_serve(_config(), new), restarts_of_pages(_config(), new)

    for words, program, expected in zip(
        told, ("authz serve", "authz pages"), (serve, pages), strict=True
    ):
        assert len(words) == expected
        assert all(field in each and program in each for each in words)
