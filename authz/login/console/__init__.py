"""The operators' console at `/authz/admin`: what goes on, and what an operator may change."""
