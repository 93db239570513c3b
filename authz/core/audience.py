"""Whether a token was made for a server: its `aud` claim against the server's resource URL.

Law: audiences are strings and are compared as strings. Nothing is resolved, decoded, lower-cased
or cut off, because Authelia grants whatever begins with an allowed audience, verbatim: `/../`,
a query and a longer path among it.
"""


def names(audience: tuple[str, ...], resource: str) -> bool:
    """Tell whether one entry of the audience is this resource (RFC 9068, section 4; RFC 8707).

    One trailing slash on the entry is tolerated, since clients add one to a URL without a path;
    a slash is never added to a resource that has one already.
    """
    if resource in audience:
        return True
    return not resource.endswith("/") and f"{resource}/" in audience
