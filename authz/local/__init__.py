"""The pieces on one machine without containers: Envoy, Valkey and the service, supervised."""
