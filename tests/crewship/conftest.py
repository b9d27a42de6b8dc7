"""Hypothesis without deadlines: a timing is a benchmark, never an assertion, and machines that run tests are busy."""

from hypothesis import settings

settings.register_profile("crewship", deadline=None)
settings.load_profile("crewship")
