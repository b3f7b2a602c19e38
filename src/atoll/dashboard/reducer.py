"""The one reducer of typed events. What it knows is shown twice, by the live page and by the kept file."""

from collections import Counter

from atoll import events as e
from atoll.dashboard.island import Island, Seconds
from atoll.dashboard.steps import StepHistory
from atoll.dashboard.timeline import Timeline
from atoll.dashboard.view import MAX_EVALUATIONS, NAMES, About, History, Name
from atoll.events import Event
from atoll.events.alert import MAX_ALERTS
from atoll.status import RunStatus
from atoll.terminal.names import Names
from atoll.words import MAX_NAME_LENGTH, one_line


class Reducer:
    """What a run's events tell so far. `about` says what its recipe tells."""

    def __init__(self, about: About) -> None:
        self.about = about
        self.names = Names()
        self.steps = StepHistory()
        self.steps.num_parameters, self.steps.inner_steps = about.num_parameters, about.inner_steps
        self.islands: dict[str, Island] = {}
        self.run_id = about.run_id
        self.newest: float | None = None
        self.finished = False
        self.stall = ""
        self.step = 0  # the open one
        self.attempt: e.AttemptOpened | None = None  # of the open step
        self.excluded: dict[str, str] = {}  # from the open step: island -> why
        self.alerts: dict[tuple[str, str], e.Alert] = {}
        self.sources: Counter[str] = Counter()
        self._sources_of: list[dict[str, int]] = []  # by committed step
        self.touched: set[Name] = set(NAMES)  # parts of the view that are others now
        self.status: RunStatus | None = None
        self.hosted: bool | None = None
        self._began: float | None = None  # when the open step could begin
        self.evaluations: list[e.Evaluated] = []
        self.timeline = Timeline(self.names)

    def take(self, event: Event) -> None:
        """The next event."""
        self.newest = event.time
        self.touched |= parts_of(event)
        self.timeline.hear(event)
        if event.island:
            self._island(event.island).timeline.hear(event)
        match event:
            case e.Committed():
                self._committed(event)
            case e.AttemptOpened():
                self.step, self.attempt = max(self.step, event.step), event
            case e.Excluded():
                self.excluded[event.island] = one_line(event.reason)
            case e.Stalled():
                self.stall = one_line(event.reason)
            case e.Resumed():
                self.stall = ""
            case e.Evaluated():
                self.evaluations = [*self.evaluations[-MAX_EVALUATIONS + 1 :], event]
            case e.Finished():
                self.finished, self.stall = True, ""
            case e.Alert():
                self._alert(event)
            case e.ReignBegan() | e.Rewound() | e.Imported():
                self._reign(event)
            case _ if event.island:
                self._member(self._island(event.island), event)
            case _:
                pass

    def see(self, status: RunStatus | None) -> None:
        """What the coordinator says of the run now; None: it does not answer."""
        self.touched |= {"now", "islands"}
        if status is None:
            self.hosted = False
            return
        self.status, self.hosted = status, status.hosted
        self.run_id = one_line(status.run_id)
        for row in status.islands:
            island = self._island(row.island)
            island.contributor, island.relay = (
                one_line(row.contributor, MAX_NAME_LENGTH),
                island.relay or row.relay,
            )
            island.stands(row.place)
            island.links(row.link)
            self.names.learn(row.island, row.contributor)

    def _island(self, name: str) -> Island:
        if name not in self.islands:
            self.islands[name] = Island(name, self.names)
        return self.islands[name]

    def _committed(self, event: e.Committed) -> None:
        there = {key for key, island in self.islands.items() if island.alive and not island.relay}
        spent: list[Seconds] = [
            self._island(name).committed(event.step, event.time, given)
            for name, given in event.participants.items()
        ]
        self.steps.add(event, self._began, len(there | event.participants.keys()), spent)
        self._sources_of.append(event.sources)
        self.sources.update(event.sources)
        self._began = event.time
        self._open_step(event.step + 1)

    def _open_step(self, step: int) -> None:
        self.step, self.attempt, self.stall = step, None, ""
        self.excluded = {}

    def _reign(self, event: e.ReignBegan | e.Rewound | e.Imported) -> None:
        if isinstance(event, e.Imported):
            self._open_step(max(self.step, event.num_commits))
            return
        if isinstance(event, e.Rewound):
            self.steps.go_back(event.step)
            while len(self._sources_of) > len(self.steps):
                self.sources.subtract(self._sources_of.pop())
            for island in self.islands.values():
                island.go_back(event.step)
            self.finished = False
            self.steps.mark(event.time, "rewind", event.text)
        else:
            self.run_id = one_line(event.run_id)
            self.alerts.clear()  # whoever leads now looks anew
            self._began = event.time
            for island in self.islands.values():
                if island.connected:
                    island.gone(event.time, "its coordinator was started anew, and it has yet to dial in")
            self.steps.mark(event.time, "reign", event.text)
        self._open_step(max(event.step, 0))

    def _member(self, island: Island, event: Event) -> None:
        """What happens to one island."""
        name = self.names.of(event.island)
        match event:
            case e.Enrolled():
                island.contributor = one_line(event.contributor, MAX_NAME_LENGTH)
                island.stands(event.place)
                island.links(event.link)
                self.names.learn(event.island, event.contributor)
            case e.Joined():
                island.joined(event.time, event.contributor, event.relay)
                self.names.learn(event.island, event.contributor)
                self.steps.mark(event.time, "join", self.names.within(event.text))
            case e.Ready():
                island.ready_step = event.step
            case e.Recovered():
                self.steps.mark(event.time, "recovery", self.names.within(event.text))
            case e.Left():
                island.gone(event.time, event.reason)
                self.steps.mark(event.time, "death", f"{name} is gone: {event.reason}")
            case e.Frozen():
                island.frozen = True
                island.change(event.time, f"silent for {event.silent_seconds:.1f} s, though its line is up")
                self.steps.mark(event.time, "death", self.names.within(event.text))
            case e.Thawed():
                island.frozen = False
                island.change(event.time, "it is heard again")
                self.steps.mark(event.time, "recovery", self.names.within(event.text))
            case e.Evicted():
                island.evicted = True
                island.gone(
                    event.time, f"the operator has put it out{': ' * bool(event.reason)}{event.reason}"
                )
            case e.Readmitted():
                island.evicted = False
                island.change(event.time, "readmitted, and has not dialled in yet")
            case _:
                pass

    def _alert(self, event: e.Alert) -> None:
        key = event.what, event.island
        if event.over:
            self.alerts.pop(key, None)
        elif len(self.alerts) < MAX_ALERTS or key in self.alerts:
            self.alerts[key] = event

    @property
    def is_past(self) -> bool:
        """Whether the events may have ended while islands were there: nobody can say who is there now."""
        return self.hosted is False and not self.finished

    @property
    def tokens_before(self) -> int:
        """Tokens committed before the first step that the file tells of, as far as that is known."""
        if self.status is None or not self.steps.first:
            return 0
        return max(0, self.status.committed_tokens - self.steps.tokens)

    def history(self, island: str) -> History | None:
        """One island's curves and timeline; None for one that is not known."""
        known = self.islands.get(island)
        return known.history() if known is not None else None


def parts_of(event: Event) -> set[Name]:
    """Which parts of a view an event changes."""
    if isinstance(event, e.Committed | e.Rewound | e.ReignBegan | e.Finished):
        return set(NAMES)
    if event.routine:
        return {"now", "islands"}
    return {"now", "islands", "steps", "story"}
