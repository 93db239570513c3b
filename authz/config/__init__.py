"""One file, `authz.yaml`, to frozen values: read, validated, explained."""
