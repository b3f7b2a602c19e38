"""A process: it lives, freezes, dies between any two of its effects, and reads a clock of its own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from atoll.simulate.timeline import Task, Work

if TYPE_CHECKING:
    from atoll.simulate.network import Network
    from atoll.simulate.timeline import Timeline


class Died(Exception):
    """The process ends here, between two effects: nothing after it is carried out."""


class Process:
    """Base of islands and coordinators. Whatever an incarnation scheduled dies with it."""

    def __init__(self, name: str, timeline: "Timeline", network: "Network") -> None:
        self.name = name
        self.timeline = timeline
        self.network = network
        self.up = False
        self.dark = False  # its machine is off: nobody answers for it, not even to refuse
        self.frozen = False
        self.serving = True  # others can dial it
        self.incarnation = 0
        self.doom: int | None = None  # effects that it may still carry out
        self.dies_dark = False
        self.clock_offset = 0.0
        self.clock_rate = 1.0
        self._backlog: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []

    def clock(self) -> float:
        """What this process takes for the time. Never runs back, as CLOCK_MONOTONIC."""
        return self.timeline.now * self.clock_rate + self.clock_offset

    def set_clock_rate(self, rate: float) -> None:
        self.clock_offset = self.clock() - self.timeline.now * rate
        self.clock_rate = rate

    # ------------------------------------------------------------------------------------------ what it does
    def later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Do it after so many seconds of its own clock, or when it thaws, if it still lives then."""
        self.timeline.after(seconds / self.clock_rate, self.do, self.incarnation, action, arguments)

    def do(self, incarnation: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if incarnation != self.incarnation or not self.up:
            return
        if self.frozen:
            self._backlog.append((incarnation, action, arguments))
            return
        try:
            action(*arguments)
        except Died:
            self.die(self.dies_dark)

    def spawn(self, work: Work) -> Task:
        return Task(self, work)

    def survive(self) -> None:
        """Called before each effect. Raises Died when the fault that was armed strikes here."""
        if self.doom is not None:
            if self.doom <= 0:
                raise Died
            self.doom -= 1

    def dial(self, peer: "Process", seconds: float) -> Work:
        """Open a connection: True; False when refused, or when nobody answered within `seconds`."""
        round_trip = self.network.delay(self.name, peer.name) + self.network.delay(peer.name, self.name)
        yield 2 * round_trip  # TCP, then TLS
        reachable = self.network.both_ways(self.name, peer.name)
        if reachable and not peer.dark and not peer.frozen:
            return peer.up and peer.serving
        yield max(0.0, seconds - 2 * round_trip)
        return False

    # ------------------------------------------------------------------------------------- what happens to it
    def start(self) -> None:
        self.up, self.dark, self.frozen, self.doom = True, False, False, None
        self.incarnation += 1

    def die(self, dark: bool = False) -> None:
        """kill -9; `dark` also loses its machine's power, with what was not synced."""
        if not self.up:
            return
        self.up, self.dark, self.frozen, self.doom = False, dark, False, None
        self.incarnation += 1
        self._backlog = []
        self.network.process_ended(self, dark)
        self.died(dark)

    def freeze(self) -> None:
        self.frozen = True
        self.network.process_frozen(self)

    def thaw(self) -> None:
        """Go on with what came meanwhile, in order."""
        if not self.frozen:
            return
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for entry in backlog:
            self.do(*entry)
        self.network.process_frozen(self)

    # ---------------------------------------------------------------------------- what subclasses have to say
    def died(self, dark: bool) -> None:
        """What the death did to what it leaves behind."""

    def hear(self, line: Any, message: Any) -> None:
        """A message came on a line."""

    def line_broke(self, line: Any, reason: str) -> None:
        """This end of a line is closed."""
