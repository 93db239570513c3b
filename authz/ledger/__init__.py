"""What is kept across requests: revocations, step-ups, approvals, limits, tool definitions."""
