"""What is told of decisions: metrics for Prometheus and one log line each."""
