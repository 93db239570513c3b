"""Metrics for Prometheus, and the log of decisions and events."""
