"""What every test shares: hypothesis without a clock, since the machines are noisy."""

from hypothesis import settings

settings.register_profile("authz", deadline=None)
settings.load_profile("authz")
