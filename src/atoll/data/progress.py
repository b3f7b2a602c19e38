"""How far preparing is, how fast it goes and how long it will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["tokenizer", "tokens"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a phase is with a source."""

    phase: Phase
    source: str
    num_documents: int
    num_bytes: int  # of UTF-8 text
    fraction: float | None  # of the source's files that is read; None where its size is unknown
    bytes_per_second: float
    seconds_left: float | None


Report = Callable[[Progress], None]


class Watch:
    """Times a phase of a source from now on, also one that goes on where an earlier process ended."""

    def __init__(self, phase: Phase, source: str, num_bytes: int = 0, fraction: float | None = 0.0) -> None:
        self._phase: Phase = phase
        self._source, self._first_bytes, self._first_fraction = source, num_bytes, fraction or 0.0
        self._started = time.monotonic()

    def progress(self, num_documents: int, num_bytes: int, fraction: float | None) -> Progress:
        seconds = time.monotonic() - self._started + 1e-9
        left = None
        if fraction is not None and fraction > self._first_fraction:
            left = seconds * (1 - fraction) / (fraction - self._first_fraction)
        rate = (num_bytes - self._first_bytes) / seconds
        return Progress(
            phase=self._phase,
            source=self._source,
            num_documents=num_documents,
            num_bytes=num_bytes,
            fraction=fraction,
            bytes_per_second=rate,
            seconds_left=left,
        )
