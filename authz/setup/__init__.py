"""A folder that runs: what `authz init` writes, and what clients are told to reach it.

Law: what somebody has written, or may have changed, is never overwritten; every secret is made on
the spot, lies in a file of its owner's, and stands in no other file.
"""
