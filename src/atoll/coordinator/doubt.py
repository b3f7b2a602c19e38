"""Doubt: this database may be an old backup; whom it must hear before it decides anything (PROTOCOL 2)."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Doubt:
    """Open until all that are awaited have spoken, and whoever else may know more had time to."""

    awaited: set[str] = field(default_factory=set[str])
    is_open: bool = False
    until: float = 0.0  # no earlier

    def begin(self, islands: Iterable[str], until: float) -> None:
        """`islands` took part in what this database knows last: what it does not know, they or others may."""
        self.is_open, self.until = True, until
        self.awaited = set(islands)

    def ends(self, now: float) -> bool:
        """Close it if nobody is awaited any more; whether that was now."""
        over = self.is_open and not self.awaited and now >= self.until
        self.is_open = self.is_open and not over
        return over
