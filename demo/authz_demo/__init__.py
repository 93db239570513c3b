"""The demonstration: a stand-in issuer, sample MCP servers, a scenario. Not for production."""
