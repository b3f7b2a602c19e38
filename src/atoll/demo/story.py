"""What happened in a run, from its events: commits, a death and a return, and how long each took."""

from dataclasses import dataclass, field

from atoll.events import Committed, Event, Frozen, Left, Ready, Unequal


@dataclass(kw_only=True)
class Story:
    """Fed with events in order; `watch` names the island whose death and return are told."""

    commits: list[Committed] = field(default_factory=list[Committed])
    watched: str = ""
    killed_at: float = 0.0
    restarted_at: float = 0.0
    noticed: Event | None = None
    survived: Committed | None = None  # first commit without it
    recovered: Ready | None = None  # at the head again
    rejoined: Committed | None = None  # first commit with it again
    unequal: int = 0
    ready_roots: dict[int, set[str]] = field(default_factory=dict[int, set[str]])

    def add(self, event: Event) -> None:
        """The next event of the run."""
        if isinstance(event, Committed):
            self.commits.append(event)
        if isinstance(event, Unequal):
            self.unequal += 1
        if isinstance(event, Ready):
            self.ready_roots.setdefault(event.step, set()).add(event.root)
        if self.killed_at and event.time >= self.killed_at:
            self._add_after_the_death(event)

    def _add_after_the_death(self, event: Event) -> None:
        if isinstance(event, Committed):
            takes_part = self.watched in event.participants
            if not takes_part and self.survived is None:
                self.survived = event
            elif takes_part and self.recovered is not None and self.rejoined is None:
                self.rejoined = event
        elif event.island == self.watched:
            if isinstance(event, Left | Frozen) and self.noticed is None:
                self.noticed = event
            elif isinstance(event, Ready) and self.restarted_at and self.recovered is None:
                self.recovered = event

    @property
    def roots_equal(self) -> bool:
        """Every ready island reported, at every step, agent and trainer, the one committed root."""
        roots = {commit.step + 1: commit.root for commit in self.commits}
        return not self.unequal and all(
            reported == {roots[step]} for step, reported in self.ready_roots.items() if step in roots
        )
