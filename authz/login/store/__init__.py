"""What the authorization server keeps in Redis: codes, grants, blocks, revocations for Authelia."""
