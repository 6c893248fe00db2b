"""Settings of the whole suite."""

from hypothesis import HealthCheck, settings

# A fresh clone has no table of Unicode's categories in its cache yet, and a small board is slow:
# neither is a failure.
settings.register_profile("pinnace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pinnace")
