"""The trainer's line to its agent: starts the agent's process, replaces one that died, and carries messages.

It blocks, and is for one thread of one process: in an island of several ranks, the first has the line.
"""

import contextlib
import select
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from socket import socket
from typing import NoReturn, Protocol

from atoll.agent.frames import frame, read_frame
from atoll.agent.membership import Membership
from atoll.agent.membership import load as load_membership
from atoll.agent.orders import Orders
from atoll.agent.process import agent_process
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.swarm.messages import Adopt, Pulse, Stopped, trainer
from atoll.swarm.records import Plan
from atoll.swarm.transport import TransportError

SILENT_SECONDS = 60.0  # an agent pulses every second; one that is silent for so long is frozen
ENROL_SECONDS = 120.0
POLL_SECONDS = 0.05  # while it enrols
STOP_SECONDS = 1.0  # for an agent that is being replaced
MAX_RESTARTS = 5  # in a row, of agents that died young
YOUNG_SECONDS = 20.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.4, 5.0  # before a restart; doubled for the next one in a row
MISTAKE = 2  # exit status of an agent that found a mistake which only its user can mend


class AgentProcess(Protocol):
    """A running agent as its trainer sees it; a test may put something else in a child's place."""

    @property
    def socket(self) -> socket:
        """The trainer's end of the pair."""
        ...

    @property
    def alive(self) -> bool: ...

    def stop(self, seconds: float = 10.0) -> int:
        """End it, by force after `seconds`; its exit status."""
        ...


class AgentLine:
    """One island's line to its agent. Agents may come and go; the line and what it remembers stay."""

    def __init__(
        self,
        settings: Settings,
        ticket: str = "",
        log: Path | None = None,
        *,
        replaced: Callable[[str, int], None] = lambda why, status: None,
        check: Callable[[], None] = lambda: None,
        told: Callable[[Pulse, bool], None] = lambda pulse, waits: None,
        start: Callable[[Settings, str, Path | None], AgentProcess] = agent_process,
    ) -> None:
        """Start the agent.

        `ticket` may be empty once the directory is a member of its run. `log` takes the agent's standard
        error; without it, this process's does. `replaced` hears of each agent that died: why, and its exit
        status. `check` is called every few seconds while something is awaited, and ends the wait by an
        exception. `told` hears of each sign of life, and whether the trainer waits for its agent meanwhile.
        """
        self.settings = settings
        self._ticket = ticket
        self._log = log
        self._replaced = replaced
        self._check = check
        self._told = told
        self._start = start
        self._orders = Orders(self._say, time.monotonic)
        self._restarts = 0  # in a row, of agents that died young
        self._agent = self._started()

    def membership(self) -> Membership:
        """What this island is a member of, once its agent has enrolled it.

        Raises UserError when the agent may not go on, or has not enrolled within ENROL_SECONDS.
        """
        directory, deadline = self.settings.directory, time.monotonic() + ENROL_SECONDS
        while (member := load_membership(directory)) is None:
            if select.select([self._agent.socket], [], [], POLL_SECONDS)[0]:
                self._hear()  # a sign of life, or its last words; then, a new agent
            if self._orders.moved_on:
                self._refuse()
            if time.monotonic() > deadline:
                raise UserError(f"{directory}: no membership within {ENROL_SECONDS:.0f} s")
        return member

    def orders(self) -> Iterator[Adopt | Plan]:
        """What to do next, until the run is finished. Raises UserError when this island may not go on."""
        self._orders.attach()
        while True:
            order = self._orders.next()
            if isinstance(order, Stopped):
                return
            if order is None:
                self._hear()
            else:
                yield order

    def adopted(self, order: Adopt, loaded: bytes) -> None:
        """As `Orders.adopted`."""
        self._orders.adopted(order, loaded)

    def measured(self, **figures: float | None) -> None:
        """As `Orders.measured`."""
        self._orders.measured(**figures)

    def progress(self, loss: float | None, tokens: int, inner_steps: int = 1) -> bool:
        """As `Orders.progress`, once it has heard what the agent has said meanwhile."""
        while not self._orders.moved_on and self._has_spoken:
            self._hear(waits=False)
        return self._orders.progress(loss, tokens, inner_steps)

    def propose(self, tokens: int, loss: float | None, count: int | None = None) -> None:
        """As `Orders.propose`."""
        self._orders.propose(tokens, loss, count)

    @property
    def moved_on(self) -> bool:
        """As `Orders.moved_on`, by what has been heard so far."""
        return self._orders.moved_on

    def data_dir(self) -> Path:
        """Where the run's prepared data is: its manifest and tokenizer, fetched if need be.

        Before `orders`. Raises UserError when this island may not go on.
        """
        path = self.provide({})
        if path is None:
            self._refuse()
        return path

    def provide(self, blocks: Mapping[str, tuple[int, ...]]) -> Path | None:
        """Where the prepared data is, with these blocks of its files; None when an order came first."""
        self._orders.want(blocks)
        while self._orders.wanted is not None:
            self._hear()
        return self._orders.data_dir

    @property
    def agent_alive(self) -> bool:
        """Whether the newest agent's process lives."""
        return self._agent.alive

    def close(self) -> None:
        """Let the agent end; it leaves the swarm and keeps its files."""
        self._agent.stop()

    # -------------------------------------------------------------------------------------------- the agent
    def _say(self, message: trainer.ToAgent) -> None:
        with contextlib.suppress(OSError):  # a dead agent is replaced where the next message is awaited
            self._agent.socket.sendall(frame(message))

    @property
    def _has_spoken(self) -> bool:
        """Whether a message of the agent, or its end, is there to be heard."""
        return bool(select.select([self._agent.socket], [], [], 0)[0])

    def _hear(self, waits: bool = True) -> None:
        """Take in the agent's next message, or start another agent in the place of one that died or froze.

        `waits`: the trainer has nothing to do before that.
        """
        try:
            message = read_frame(self._agent.socket, trainer.TRAINER_DOOR)
        except TimeoutError:
            self._replace(f"it has said nothing for {SILENT_SECONDS:.0f} s")
            return
        except TransportError as error:
            self._replace(str(error))
            return
        if isinstance(message, Pulse):
            self._told(message, waits)
        self._orders.hear(message)
        self._check()

    def _replace(self, why: str) -> None:
        """A dead agent costs nothing but time: its files hold all that it knew, and we what we work on."""
        status = self._agent.stop(STOP_SECONDS)
        self._replaced(why, status)
        if time.monotonic() - self._started_at > YOUNG_SECONDS:
            self._restarts = 0
        if status == MISTAKE or self._restarts == MAX_RESTARTS:
            log = self._log or "standard error"
            raise UserError(f"this island's agent cannot go on ({why}); its log: {log}")
        time.sleep(min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._restarts))
        self._restarts += 1
        self._agent = self._started()
        self._orders.agent_replaced()

    def _started(self) -> AgentProcess:
        self._started_at = time.monotonic()
        agent = self._start(self.settings, self._ticket, self._log)
        agent.socket.settimeout(SILENT_SECONDS)
        return agent

    def _refuse(self) -> NoReturn:
        """Raise the reason to stop: an order that comes before the trainer is attached can be no other."""
        self._orders.next()
        raise UserError("the run is finished")
