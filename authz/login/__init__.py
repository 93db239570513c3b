"""Log-ins of people: so far from a terminal (`authz login`)."""
