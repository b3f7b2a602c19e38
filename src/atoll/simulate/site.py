"""One island's machine: a disk, a trainer's process, and the agents that this starts one after the other."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.agent.server import Agent
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.files import disk_error, remove_leftovers
from atoll.simulate.disk import ForgetfulDisk
from atoll.simulate.network import SimulatedTransport
from atoll.simulate.process import Clock, Doom, Process
from atoll.simulate.trainer import Socket, Trainer
from atoll.swarm import messages as m
from atoll.swarm.address import Address

if TYPE_CHECKING:
    from atoll.simulate.world import World

TRAINER = "'s trainer"  # after an island's name: the name of its trainer's process
AGENT_START_SECONDS = 0.3  # a process starts, and imports


class Site:
    """A machine of the world that is an island, or a relay. It stays; its processes come and go."""

    def __init__(self, world: "World", name: str, *, relay: bool, dial_only: bool, has_state: bool) -> None:
        self.world, self.name, self.relay, self.dial_only = world, name, relay, dial_only
        self.random = random.Random(f"site {world.seed} {name}")
        self.disk = ForgetfulDisk(world.directory / name, f"{world.seed} {name}")
        self.directory = self.disk.directory
        self.step_seconds = world.setting.step_seconds * self.random.uniform(0.7, 1.4)
        self.clock = Clock()
        self.begun = False
        self.stopped: str | None = None  # why it is over for this machine; "" for a finished run
        self.agent: Agent | None = None
        self.agent_process: Process | None = None
        self.agent_stopped = ""  # why the last agent could not go on
        self.trainer: Trainer | None = None
        self.trainer_process: Process | None = None
        self.stalled_until = 0.0  # its trainer computes nothing before
        self.disk_slow_until = 0.0
        self._disk_slowness = 1.0
        self.lives: list[Process] = []  # all processes that ever lived here
        self._socket: Socket | None = None
        self.has_state = has_state

    # ---------------------------------------------------------------------------------------- what lives here
    @property
    def processes(self) -> list[Process]:
        """Those that live, the agent first."""
        return [p for p in (self.agent_process, self.trainer_process) if p is not None and p.alive]

    @property
    def up(self) -> bool:
        """Whether everything that belongs here lives."""
        return len(self.processes) == (1 if self.relay else 2)

    @property
    def frozen(self) -> bool:
        return any(process.frozen for process in self.processes)

    @property
    def doomed(self) -> bool:
        return any(process.doom is not None for process in self.processes)

    @property
    def stalled_seconds(self) -> float:
        return self.stalled_until - self.world.loop.now

    # ------------------------------------------------------------------------------------------ begin and end
    def start(self) -> None:
        """Start what does not live, as the same command does."""
        if self.stopped is not None or self.up:
            return
        self.begun = True
        self.world.network.dark.discard(self.name)
        if self.relay:
            self.start_agent(None)
            return
        if self.trainer_process is None or not self.trainer_process.alive:
            self.kill_agent()  # one whose trainer is gone ends, and only then another can begin
            process = self.trainer_process = self._process(self.name + TRAINER)
            process.start(self._trainer_life(process))

    def start_agent(self, socket: Socket | None) -> None:
        """A new agent's process, at the other end of its trainer's socket."""
        self.kill_agent()
        self._socket = socket
        process = self.agent_process = self._process(self.name)
        process.start(self._agent_life(process, socket))

    def kill_agent(self, dark: bool = False) -> None:
        """End the agent as `kill -9` does."""
        if self.agent_process is not None and self.agent_process.alive:
            self.world.kill(self.agent_process, dark)

    def kill_trainer(self) -> None:
        if self.trainer_process is not None and self.trainer_process.alive:
            self.world.kill(self.trainer_process, False)

    def lose_power(self) -> None:
        """Everything dies at once, and what was not durable is lost."""
        self.world.network.dark.add(self.name)
        inside = next((p for p in self.processes if p.is_running), None)
        for process in self.processes:
            if process is not inside:
                self.world.kill(process, True)
        if inside is None:
            self.disk.lose_power()
        else:
            inside.then(self.disk.lose_power)
            self.world.kill(inside, True)

    def doom(self, kind: str, count: int, strike: Callable[[], None]) -> None:
        """Let its agent's process live for so many steps, lines or syncs more."""
        if self.agent_process is not None and self.agent_process.alive:
            self.agent_process.doom = Doom(kind, count, strike)

    def _process(self, name: str) -> Process:
        process = self.world.new_process(name, self.disk, self.clock)
        process.disk_slowness = self._disk_slowness
        self.lives.append(process)
        return process

    def slow_disk(self, until: float, factor: float) -> None:
        """What its threads do takes so many times as long, until that moment."""
        self.disk_slow_until, self._disk_slowness = until, factor
        for process in self.processes:
            process.disk_slowness = factor

    def free_disk(self) -> None:
        """There is room again, and whoever stopped for it starts it again."""
        self.disk.full = False
        self.start()

    def process_died(self, process: Process) -> None:
        """One of its processes is gone: the other reads the end of their socket."""
        if self._socket is not None and process in (self.agent_process, self.trainer_process):
            self._socket.close()

    # -------------------------------------------------------------------------------------------------- lives
    async def _trainer_life(self, process: Process) -> None:
        self.trainer = Trainer(self, process)
        await self.trainer.live()
        self._end(self.trainer.stopped or "")
        process.exit()

    async def _agent_life(self, process: Process, socket: Socket | None) -> None:
        """As `agent/__main__.py`."""
        world = self.world
        self.agent_stopped = ""
        try:
            for part in ("state", "log", "outer"):
                remove_leftovers(self.directory / part)
            settings = Settings(
                directory=self.directory,
                coordinators=world.coordinator_addresses,
                contributor=self.name,
                relay=self.relay,
                listen=Address(world.network.host_of(self.name), 0),
                dial_only=self.dial_only,
                checkpoint_dirs=(world.genesis_dir,) if self.has_state else (),
            )
            transport = SimulatedTransport(world.network, process)
            self.agent = Agent(settings, self.name, world.run, world.recipe, transport, socket)
            reason = await self.agent.run()
            if self.relay:
                self._end(reason)
        except (UserError, OSError) as error:
            reason = str(disk_error(self.directory, error))
            self.agent_stopped = reason
            if socket is not None:
                socket.tell(m.Stopped(reason))
            else:
                self._end(reason)
        process.exit()

    def _end(self, reason: str) -> None:
        """It is over here: the run is finished, or this island may not go on."""
        self.world.story(self.name, f"ends: {reason or 'the run is finished'}")
        if reason:
            self.world.stopped(self, reason)
        else:
            self.stopped = ""
