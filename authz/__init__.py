"""An Envoy ext_authz sidecar for MCP servers behind Authelia."""

__version__ = "0.2.0"
