"""The demonstration: a stand-in issuer, sample MCP servers, the walk. Not for production."""
