"""A person's log-in from a terminal: `authz login`."""
