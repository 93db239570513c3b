"""`authz pages`: the authorization server (front door), step-ups, approvals, a person's log-ins."""
