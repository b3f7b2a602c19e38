"""Doubt: this database may be an old backup. Whom it must hear before it decides anything again."""

from atoll.coordinator.effects import Doubted, Effects, Persist, Timer
from atoll.coordinator.history import History
from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.events import Behind
from atoll.swarm.messages import WantRecords

ASK_AGAIN_SECONDS = 1.0  # until it is looked again whether the doubt is over


class Doubt:
    """Open until all islands that are awaited have spoken, and any other that may know more had time to."""

    def __init__(self, history: History, plans: Plans, members: Members, doubt_seconds: float) -> None:
        """`doubt_seconds`: so long whoever comes is heard, at least."""
        self.awaited: set[str] = set()
        self.is_open = False
        self._until = 0.0
        self._history, self._plans, self._members = history, plans, members
        self._doubt_seconds = doubt_seconds

    def begin(self, now: float) -> None:
        """Await whom this database knows last, by its newest commit and plans: they may know more than it."""
        last = self._plans.keys() | self._history.newest_islands
        self.awaited = self._members.not_connected(last)
        self.is_open, self._until = True, now + self._doubt_seconds

    def persists(self, now: float, do: Effects) -> bool:
        """Whether nothing may be decided yet; the doubt ends, durably, when nobody is awaited any more."""
        if self.is_open and not self.awaited and now >= self._until:
            self.is_open = False
            do.append(Persist(Doubted(False)))
        if self.is_open:
            do.append(Timer(max(self._until, now + ASK_AGAIN_SECONDS)))
        return self.is_open

    def ask(self, member: Member, now: float, do: Effects) -> None:
        """A member knows what this database does not, so it is an old backup: ask for what is missing."""
        if not self.is_open:
            self.begin(now)
            do.append(Persist(Doubted(True)))
        self.awaited.add(member.island)
        hello, num_commits, num_rewinds = member.hello, self._history.head, len(self._history.rewinds)
        if hello.num_rewinds <= num_rewinds:  # else the operator must say again which rewind that was
            do.send(member.island, WantRecords(num_commits))
        do.report(
            Behind(
                island=member.island,
                num_commits=num_commits,
                num_rewinds=num_rewinds,
                island_num_commits=hello.head,
                island_num_rewinds=hello.num_rewinds,
            )
        )
