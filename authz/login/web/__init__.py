"""HTTP of the authorization server: OAuth endpoints, pages, step-ups, a person's own log-ins."""
