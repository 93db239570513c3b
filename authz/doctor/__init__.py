"""Diagnosis of a deployment: what is wrong with it, and which line of whose configuration fixes it.

Nothing is changed but one key in Redis that expires within a second. No token or secret is printed,
and of a token's claims only what tells whose it is.
"""
