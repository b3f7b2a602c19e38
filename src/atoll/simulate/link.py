"""An island's end of its control lines, as `agent/link.py`: it dials for ever, says Hello, then Beats."""

from typing import TYPE_CHECKING, Any

from atoll.agent.link import BEAT_SECONDS, MAX_PAUSE_SECONDS
from atoll.simulate.line import ISLAND, Line
from atoll.simulate.timeline import Signal, Work
from atoll.swarm import messages as m
from atoll.swarm.records import Message

if TYPE_CHECKING:
    from atoll.simulate.island import Island

CONNECT_SECONDS = 10.0


class Link:
    """One incarnation's. What cannot be sent is dropped: it is said again after the next Hello."""

    def __init__(self, island: "Island") -> None:
        self._island = island
        self._line: Line | None = None
        self._down = Signal()

    def send(self, message: Message) -> None:
        if self._line is not None:
            self._line.send(ISLAND, message)

    def run(self) -> Work:
        island, pause = self._island, 0.2
        session = f"{island.name}/{island.incarnation}"
        while True:
            coordinator = island.world.route(island.name)
            if (yield from island.dial(coordinator, CONNECT_SECONDS)):
                self._line = line = Line(island.network, island, coordinator)
                machine, port = island.machine, 1 if island.serving else 0
                self.send(
                    m.Hello(
                        session=session,
                        version=m.VERSION,
                        recipe_digest="recipe",
                        self_test=b"self-test",
                        contributor=island.name,
                        relay=island.relay,
                        port=port,
                        addresses=(),
                        head=machine.head,
                        head_root=machine.head_root,
                        term=machine.term,
                    )
                )
                self._beat(line)
                pause = 0.2
                while line.is_open(ISLAND):
                    yield self._down
                self._line = None
            yield pause
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def hear(self, line: Line, message: Any) -> None:
        if line is not self._line:
            return
        island = self._island
        if isinstance(message, m.Donors):
            island.donors = message.addresses
        elif isinstance(message, m.WantRecords):  # a coordinator with an old backup asks what we know
            since = max(0, message.since)
            line.send(ISLAND, m.Records.first_of(island.disk.records[since:]))
        elif not isinstance(message, m.Coordinators):  # which one a line reaches is the world's affair
            island.put(message)

    def broke(self, line: Line) -> None:
        if line is self._line:
            self._down.fire()

    def _beat(self, line: Line) -> None:
        if self._line is line and line.is_open(ISLAND):
            p, exchange = self._island.progress, self._island.exchange
            attempt, num_pieces = (exchange.attempt.number, len(exchange.pieces)) if exchange else (0, 0)
            line.send(
                ISLAND,
                m.Beat(
                    step=p.step,
                    inner_step=p.inner_step,
                    metrics=p.metrics,
                    attempt=attempt,
                    num_pieces=num_pieces,
                ),
            )
            self._island.later(BEAT_SECONDS, self._beat, line)
