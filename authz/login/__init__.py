"""`authz pages`: the authorization server (front door), step-ups, and a person's own log-ins."""
