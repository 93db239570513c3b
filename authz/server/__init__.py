"""The running service: the check, its transport, health, reload and drain."""
