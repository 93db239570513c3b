"""What every test shares: hypothesis without a clock, since the machines are noisy."""

from hypothesis import settings

settings.register_profile("authz", deadline=None)
# `--hypothesis-profile=long`: thirty times as many, for a campaign by hand.
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("authz")
