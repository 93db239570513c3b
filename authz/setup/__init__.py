"""The deployment folder that `authz init` writes, and the configuration of MCP clients.

Invariant: what exists is never overwritten, and a secret stands in one file of its owner's
(tests/setup/test_write.py).
"""
