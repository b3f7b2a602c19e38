"""Doubt: this database may be an old backup. Whom it must hear before it decides anything again."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from atoll.coordinator.effects import Effects
from atoll.coordinator.history import History
from atoll.coordinator.members import Member
from atoll.swarm.messages import WantRecords


@dataclass
class Doubt:
    """Open until all islands that are awaited have spoken, and any other that may know more had time to."""

    awaited: set[str] = field(default_factory=set[str])
    is_open: bool = False
    until: float = 0.0  # it closes no earlier

    def begin(self, awaited: Iterable[str], until: float) -> None:
        """`awaited` took part in what this database knows last: they may know what it does not."""
        self.is_open, self.until = True, until
        self.awaited = set(awaited)

    def ends(self, now: float) -> bool:
        """Close it if nobody is awaited any more; whether that was now."""
        over = self.is_open and not self.awaited and now >= self.until
        self.is_open = self.is_open and not over
        return over

    def ask(self, member: Member, history: History, do: Effects) -> None:
        """A member knows what this database does not: ask it for the records that are missing."""
        self.awaited.add(member.island)
        if member.hello.num_rewinds > len(history.rewinds):
            more = "a rewind that it does not: host it with that --rewind again"
        else:
            more = f"{member.hello.head} commits, it only {history.head}; importing"
            do.send(member.island, WantRecords(history.head))
        text = f"this database is an old backup: {member.island} knows {more}"
        do.report("behind", text, member.island)
