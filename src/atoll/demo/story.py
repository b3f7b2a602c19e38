"""What happened in a run, from its events: commits, a death and a return, and how long each took."""

from dataclasses import dataclass, field

from atoll.events import Event


@dataclass
class Story:
    """Fed with events in order; `watch` names the island whose death and return are told."""

    commits: list[Event] = field(default_factory=list[Event])
    watched: str = ""
    killed_at: float = 0.0
    restarted_at: float = 0.0
    noticed: Event | None = None
    survived: Event | None = None  # first commit without it
    recovered: Event | None = None  # at the head again
    rejoined: Event | None = None  # first commit with it again
    unequal: int = 0
    ready_roots: dict[int, set[str]] = field(default_factory=dict[int, set[str]])

    def add(self, event: Event) -> None:
        if event.kind == "committed":
            self.commits.append(event)
        if event.kind == "unequal":
            self.unequal += 1
        if event.kind == "ready":
            self.ready_roots.setdefault(event.step, set()).add(event.facts["root"])
        if not self.killed_at or event.time < self.killed_at:
            return
        mine = event.island == self.watched
        takes_part = event.kind == "committed" and self.watched in event.facts["participants"]
        if self.noticed is None and mine and event.kind in ("left", "frozen"):
            self.noticed = event
        elif self.survived is None and event.kind == "committed" and not takes_part:
            self.survived = event
        elif self.restarted_at and self.recovered is None and mine and event.kind == "ready":
            self.recovered = event
        elif self.recovered is not None and self.rejoined is None and takes_part:
            self.rejoined = event

    @property
    def roots_equal(self) -> bool:
        """Every ready island reported, at every step, agent and trainer, the one committed root."""
        roots = {commit.step + 1: commit.facts["root"] for commit in self.commits}
        return not self.unequal and all(
            reported == {roots[step]} for step, reported in self.ready_roots.items() if step in roots
        )
