"""Progress reports of `atoll prepare`: how much is done, how fast it goes and how long the rest will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["tokenizer", "tokens"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one phase has come with one source."""

    phase: Phase
    source: str
    num_documents: int  # done
    num_bytes: int  # of their UTF-8 text
    fraction: float | None  # done of the whole, 0 to 1; None where the size of the source is unknown
    bytes_per_second: float
    seconds_left: float | None


Report = Callable[[Progress], None]


class Watch:
    """Measures the speed of one phase with one source, from the moment it is made."""

    def __init__(self, phase: Phase, source: str, num_bytes: int = 0, fraction: float | None = 0.0) -> None:
        """`num_bytes` and `fraction`: what an earlier, interrupted process has done already."""
        self._phase: Phase = phase
        self._source, self._first_bytes, self._first_fraction = source, num_bytes, fraction or 0.0
        self._started = time.monotonic()

    def progress(self, num_documents: int, num_bytes: int, fraction: float | None) -> Progress:
        """The report for what is done by now, the work of earlier processes included."""
        seconds = time.monotonic() - self._started + 1e-9
        seconds_left = None
        if fraction is not None and fraction > self._first_fraction:
            seconds_left = seconds * (1 - fraction) / (fraction - self._first_fraction)
        return Progress(
            phase=self._phase,
            source=self._source,
            num_documents=num_documents,
            num_bytes=num_bytes,
            fraction=fraction,
            bytes_per_second=(num_bytes - self._first_bytes) / seconds,
            seconds_left=seconds_left,
        )
