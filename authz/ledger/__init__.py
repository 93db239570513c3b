"""What is counted and remembered across requests: revocations, step-ups and limits."""
