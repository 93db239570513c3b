"""What every test shares: hypothesis without a clock, since the machines are noisy."""

from importlib.util import find_spec

import pytest
from hypothesis import settings

if find_spec("authz_demo") is None:
    install = "pip install --no-index --no-deps --no-build-isolation -e demo"
    pytest.exit(f"demo/ is not installed here: make setup (or only this: .venv/bin/{install})", 4)

settings.register_profile("authz", deadline=None)
# `--hypothesis-profile=long`: thirty times as many examples, for a long run by hand.
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("authz")
