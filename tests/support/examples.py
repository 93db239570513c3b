"""How many examples a property gets that wants another number than the profile's."""

from hypothesis import settings

_USUAL = 100


def examples(usually: int) -> settings:
    """Return settings with so many examples, fewer or more as the profile has fewer or more.

    Args:
        usually: how many with the profile of `make test`.
    """
    return settings(max_examples=max(1, usually * settings().max_examples // _USUAL))
