"""Whether this process runs the path of a decision translated to C (`make compiled`).

Law: it tells what was loaded, not what was asked for; both decide the same.
"""

from authz.core import decision


def is_compiled() -> bool:
    """Tell whether the decision is a compiled library."""
    return not decision.__file__.endswith(".py")
