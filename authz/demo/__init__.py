"""The demonstration: a stand-in issuer, two sample MCP servers and the scripted walk. Not for production."""
