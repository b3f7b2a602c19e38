"""`atoll evaluate RUN --follow`."""

from atoll.evaluate.verb import Shown, Wanted


def follow(wanted: Wanted, every: int, shown: Shown) -> None:
    raise NotImplementedError
