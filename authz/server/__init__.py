"""The running service: the check, the list filter, transports, reload and drain."""
