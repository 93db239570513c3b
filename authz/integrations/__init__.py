"""What runs elsewhere: files for MCP servers, each usable alone."""
