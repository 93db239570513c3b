"""Messages about security events to people's own services: ntfy, Gotify, Slack's form, JSON."""
