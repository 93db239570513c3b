"""Authelia as its OpenID client sees it: pushed requests, tokens, and what they prove."""
