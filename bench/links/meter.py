"""What crossed the emulated links, and when: the emulator's counts, looked at ten times a second."""

import itertools
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from links.wan import Count, Wan

LOOK_SECONDS = 0.1


class Meter:
    """Use as a context, inside that of the links."""

    def __init__(self, wan: Wan) -> None:
        self._wan = wan
        self._looks: list[tuple[float, Mapping[str, Count]]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter")

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._looks.append(self._wan.count())

    def between(self, begin: float, end: float) -> dict[str, Count]:
        """What happened at each site between two moments (Unix time), to a look."""
        first, last = self._at(begin), self._at(end)
        return {site: Count(*(b - a for a, b in zip(first[site], last[site], strict=True))) for site in first}

    def busiest(self, begin: float, end: float, rates: Mapping[str, tuple[float, float]]) -> float:
        """The highest share of its rate (bytes per second, up and down) that any link carried meanwhile."""
        shares = [0.0]
        for site, count in self.between(begin, end).items():
            if site in rates:
                up, down = rates[site]
                shares += [count.sent / up / (end - begin), count.received / down / (end - begin)]
        return max(shares)

    def shares(
        self, begin: float, end: float, seconds: float, rates: Mapping[str, tuple[float, float]]
    ) -> dict[str, Sequence[tuple[float, float]]]:
        """For each site, what share of its rate up and down it carried, in parts of so many seconds."""
        num_parts = max(1, round((end - begin) / seconds))
        parts = [begin + seconds * number for number in range(num_parts + 1)]
        counts = [self.between(a, b) for a, b in itertools.pairwise(parts)]
        return {
            site: [
                (round(c[site].sent / up / seconds, 2), round(c[site].received / down / seconds, 2))
                for c in counts
            ]
            for site, (up, down) in rates.items()
        }

    def _at(self, moment: float) -> Mapping[str, Count]:
        """As it was then, between the two looks around it."""
        looks = list(self._looks)
        number = bisect_left(looks, moment, key=lambda look: look[0])
        if number in (0, len(looks)):
            return looks[min(number, len(looks) - 1)][1]
        (time_a, a), (time_b, b) = looks[number - 1 : number + 1]
        part = (moment - time_a) / (time_b - time_a)
        return {
            site: Count(*(round(x + part * (y - x)) for x, y in zip(a[site], b[site], strict=True)))
            for site in a
        }
