"""Token bucket for key-set fetches that presented tokens ask for.

Anybody can present a token with a made-up `kid`, so these fetches are bounded: a small burst for
key rotations that follow each other closely, then one fetch per `cooldown`, never two within
`spacing`.
"""


class FetchBudget:
    """Bound how often tokens make us fetch the key set."""

    def __init__(self, cooldown: float, burst: int, spacing: float) -> None:
        """Begin with the whole burst.

        Args:
            cooldown: seconds until one used fetch is given back.
            burst: how many fetches may be used before that.
            spacing: least seconds between two of them.

        Raises:
            ValueError: for a burst below 1.
        """
        if burst < 1:
            raise ValueError("a budget allows at least one fetch")
        self._cooldown = cooldown
        self._tolerance = (burst - 1) * cooldown
        self._spacing = spacing
        self._full_at = 0.0  # when the whole burst is available again (GCRA)
        self._last: float | None = None

    def wait(self, now: float) -> float:
        """Return the seconds until a fetch may begin; 0 where it may now."""
        if self._last is None:
            return 0.0
        return max(0.0, self._full_at - self._tolerance - now, self._last + self._spacing - now)

    def spend(self, at: float) -> None:
        """Charge a fetch that begins at a moment."""
        self._full_at = max(self._full_at, at) + self._cooldown
        self._last = at
