"""A look at a deployment: what is wrong with it, and which line mends it.

Law: looking changes nothing but a key of its own that Redis forgets in a second; and no token,
secret or claim reaches a finding but what a person needs to know whose token it was.
"""
