"""The authorization server: from a client's request to its tokens, and to their end."""
