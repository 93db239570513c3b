"""Who an MCP client is: configured, described by a document, or registered by itself."""
