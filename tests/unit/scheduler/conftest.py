"""Property tests of the scheduler have no deadline: nothing here asserts how long something takes."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
