"""What people give, in all its forms: never a traceback, never a hang, never silently less than was given.

`make fuzz` runs these for minutes; they are no part of `make test`.
"""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

HANG_SECONDS = 300  # for all examples of a test without a sign of life would be far more

settings.register_profile(
    "fuzz", max_examples=1500, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)
settings.load_profile("fuzz")


@pytest.fixture(autouse=True)
def hang() -> Iterator[None]:
    """Whatever takes longer than HANG_SECONDS ends in an error, with a traceback of where it was."""

    def stop(*_: object) -> None:
        raise AssertionError(f"a test took longer than {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
