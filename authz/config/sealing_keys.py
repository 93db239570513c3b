"""What a file of sealing keys holds: one key a line, the newest first.

Law: a line that is too short to be a key is an error, never a weak key; no message quotes one.
"""

from typing import Final

_MIN_KEY: Final = 32  # characters of a line


def sealing_lines(text: str) -> tuple[str, ...]:
    """Return the keys of a file, in its order, without blank lines.

    Raises:
        ValueError: where the file holds no line, or one that is too short to be a key.
    """
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines or any(len(line) < _MIN_KEY for line in lines):
        raise ValueError(f"it holds no key, or one of less than {_MIN_KEY} characters")
    return lines
