"""What the authorization server does with clients, Authelia and Redis: one module per step."""
