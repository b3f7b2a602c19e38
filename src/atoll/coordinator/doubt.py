"""Doubt: this database may be an old backup. Whom it must hear before it decides anything again."""

from atoll.coordinator.effects import Doubted, Effects, Persist, Timer
from atoll.coordinator.history import History
from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.events import Behind
from atoll.swarm.messages import Records, WantRecords

ASK_AGAIN_SECONDS = 1.0  # until it is looked again whether the doubt is over


class Doubt:
    """Open until all islands that are awaited have spoken, and any other that may know more had time to."""

    def __init__(self, history: History, plans: Plans, members: Members, doubt_seconds: float) -> None:
        """`doubt_seconds`: so long whoever comes is heard, at least."""
        self.awaited: set[str] = set()
        self._asked: set[str] = set()  # for records, and not all of them have come
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
            self._ask(member, do)
        do.report(
            Behind(
                island=member.island,
                num_commits=num_commits,
                num_rewinds=num_rewinds,
                island_num_commits=hello.head,
                island_num_rewinds=hello.num_rewinds,
            )
        )

    def take_in(self, member: Member, told: Records, now: float, do: Effects) -> bool:
        """Import the records of a member that was asked: they are history, whatever their term.

        Returns whether these were all that it knows. Records that nobody asked for change nothing.
        """
        if member.island not in self._asked:
            return False
        self._asked.discard(member.island)
        for record in told.records:
            if self._history.is_next(record):
                do.append(Persist(record))
                self._plans.import_commit(record, self._members, now)
                self._history.add(record)
                self.awaited |= self._members.not_connected(record.islands)
        if told.records and self._history.head == told.records[-1].step + 1:
            self._ask(member, do)  # there may be more
            return False
        self.awaited.discard(member.island)
        return True

    def _ask(self, member: Member, do: Effects) -> None:
        self._asked.add(member.island)
        do.send(member.island, WantRecords(self._history.head))
