"""Bearer tokens to principals: key sets, strict JWT verification, the cache of verified claims."""
