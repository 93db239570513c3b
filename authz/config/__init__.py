"""Read, validate and explain authz.yaml."""
