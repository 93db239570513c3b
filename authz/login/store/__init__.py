"""What the authorization server keeps in Redis: codes, grants, blocks, revocations to be told."""
