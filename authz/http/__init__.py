"""HTTP responses and request bodies, read within bounds."""
