"""Hypothesis without time limits: the core has no clock, so a slow machine is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")
