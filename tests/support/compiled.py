"""Whether these tests run on the compiled decision (`make test-compiled`), and what differs there.

Only what the compiler's own type checks refuse first differs. A run that is meant for the compiled
files and does not have them fails.
"""

import os

import pytest

from authz.core import decision

IS_COMPILED = decision.__file__.endswith(".so")
if os.environ.get("AUTHZ_COMPILED") == "required" and not IS_COMPILED:
    raise RuntimeError(f"not the compiled files: {decision.__file__}")

interpreted = pytest.mark.skipif(IS_COMPILED, reason="the compiler's look at types comes first")
compiled = pytest.mark.skipif(not IS_COMPILED, reason="only where the decision is compiled")
