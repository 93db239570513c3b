"""What a person sees, the browser it is tied to, the step-up, and one's own log-ins."""
