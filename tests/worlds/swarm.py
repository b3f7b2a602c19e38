"""A whole swarm in one process: the real coordinator and agents, trainers without torch, no sockets."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
from worlds.network import FaultyNetwork, FaultyTransport
from worlds.trainer import NumpyTrainer

from atoll import recipe as recipes
from atoll.agent import checkpoint, diloco
from atoll.agent.server import Agent
from atoll.agent.settings import Settings
from atoll.coordinator.consumed import CountSamples, count_nothing
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.requests import Requests
from atoll.coordinator.rules import Rules
from atoll.coordinator.server import CoordinatorServer
from atoll.coordinator.status import StatusBoard
from atoll.coordinator.store import Store
from atoll.events.log import EventLog, EventReader
from atoll.swarm import messages as m
from atoll.swarm.address import Address, HostPorts
from atoll.swarm.identity import COORDINATOR, RunKeys
from atoll.swarm.layout import BLOCK, Layout, TensorSpec
from atoll.swarm.records import Message, RunInfo, encode
from atoll.swarm.services import CONTROL, OPERATE

LAYOUT = Layout(
    (TensorSpec("a", (3, BLOCK)), TensorSpec("b", (100,)), TensorSpec("c", (2, BLOCK))), 2 * BLOCK, BLOCK
)
HOST = HostPorts("memory", 1, 2, 3)


class Swarm:
    """A swarm whose processes tests start, freeze, kill and look into."""

    def __init__(self, directory: Path, num_outer_steps: int, codec: str = "int8", **rules: object) -> None:
        """`codec` may be one that only a test has registered, which no recipe can name."""
        self.directory = directory
        self.network = FaultyNetwork()
        self.claims: list[tuple[str, m.Ready]] = []  # (agent, every Ready that it sent)
        self.network.watches.append(self._keep_claims)
        self.keys = RunKeys(directory / "keys", "test")
        parameters = np.random.default_rng(0).standard_normal(LAYOUT.num_elements).astype(np.float32)
        self.genesis_root = checkpoint.flat_root(LAYOUT, parameters)
        checkpoint.save(directory / "genesis", LAYOUT, 0, self.genesis_root, parameters, None)
        self.recipe = recipes.parse(
            {
                "name": "test",
                "model": {"own": True},
                "stage": [{"until": 4 * num_outer_steps}],
                "inner": {"context_length": 8, "tokens_per_step": 16},
                "outer": {"codec": "int8", "inner_steps": 4},
            },
            "the worlds' recipe",
        )
        outer = msgspec.structs.replace(self.recipe.outer, codec=codec)
        self.recipe = msgspec.structs.replace(self.recipe, outer=outer)
        self.run = RunInfo(
            run_id="test-1",
            name="test",
            recipe=self.recipe.shared(),
            genesis_root=self.genesis_root,
            layout=LAYOUT,
            data_digest="",
            record_key=self.keys.record_key,
        )
        self.rules = Rules.of(self.recipe, diloco.self_test(), self.genesis_root, LAYOUT.num_pieces)
        self.rules = msgspec.structs.replace(self.rules, **rules)
        self.agents: dict[str, Agent] = {}
        self.trainers: dict[str, NumpyTrainer] = {}
        self._commands: dict[str, tuple[bool, float, dict[str, object]]] = {}
        self.tasks: dict[str, asyncio.Task[str]] = {}
        self.events_path = directory / "events.jsonl"
        self.count_samples: CountSamples = count_nothing

    async def start_coordinator(self, **begin: int | None) -> None:
        self.store = Store(sqlite_url(self.directory / "db"))
        self.store.claim(encode(self.run))
        self._clock: asyncio.Task[None] | None = None
        transport = FaultyTransport(self.network, COORDINATOR)
        self._log = EventLog(self.events_path)
        self.coordinator = CoordinatorServer(
            self.rules, self.run, self.keys, self.store, self._log, transport
        )
        self.board = StatusBoard(self.coordinator, self.count_samples)
        operate = Requests(self.coordinator, self.board).operate
        await transport.serve(HOST.for_members, {CONTROL: self.coordinator.control, OPERATE: operate})
        self.coordinator.reach.hosts = (HOST,)
        self.coordinator.begin(**begin)
        self._clock = asyncio.create_task(self.coordinator.keep_time())

    def _keep_claims(self, sender: str, receiver: str, message: Message) -> None:
        if isinstance(message, m.Ready):
            self.claims.append((sender, message))

    async def kill_coordinator(self) -> None:
        self.end_coordinator()

    def end_coordinator(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self.coordinator.deposed.cancel()
        self.network.sever(COORDINATOR)
        self.store.close()
        self._log.close()

    def start(self, name: str, relay: bool = False, step_seconds: float = 0.0, **settings: object) -> None:
        self._commands[name] = (relay, step_seconds, settings)
        directory = self.directory / name
        first = not self.agents or relay
        options = Settings(
            directory=directory,
            coordinators=(HOST.for_members,),
            contributor=name,
            relay=relay,
            listen=Address("memory", 0),
            dial_only=False,
            checkpoint_dirs=(self.directory / "genesis",) if first else (),
            data_dirs=(),
        )
        options = msgspec.structs.replace(options, **settings)
        transport = FaultyTransport(self.network, name)
        agent = Agent(options, name, self.run, self.recipe, transport, None)
        if not relay:
            trainer = NumpyTrainer(name, agent.work.state, self.network, len(self.claims), step_seconds)
            agent._trainer = self.trainers[name] = trainer
        self.agents[name] = agent
        self.tasks[name] = asyncio.create_task(agent.run(), name=name)

    def freeze(self, name: str) -> None:
        """Stop an agent, a trainer or the coordinator as SIGSTOP would."""
        self.network.freeze(name)
        if name == COORDINATOR and self._clock is not None:
            self._clock.cancel()

    def thaw(self, name: str) -> None:
        self.network.thaw(name)
        if name == COORDINATOR:
            self._clock = asyncio.create_task(self.coordinator.keep_time())

    def start_again(self, name: str) -> None:
        """Start an agent as the last time, in the same directory."""
        relay, step_seconds, settings = self._commands[name]
        self.start(name, relay, step_seconds, **settings)

    def end(self, name: str) -> None:
        """End an agent as `kill -9` would: it says no goodbye, and what was not on disk is lost."""
        self.network.sever(name)
        self.tasks[name].cancel()

    async def kill(self, name: str) -> None:
        """End an agent and its trainer, and wait for their end."""
        self.end(name)
        task = self.tasks.pop(name)
        await asyncio.gather(task, return_exceptions=True)
        if name in self.trainers:
            self.trainers[name].die()
        del self.agents[name]
        await asyncio.sleep(0.001)  # time passes only once its threads have ended

    async def until(self, condition, what: str, seconds: float = 30.0) -> None:
        """Wait for a condition; fail, naming `what` and the last events, if it takes longer."""
        for _ in range(int(seconds / 0.02)):
            for name, task in self.tasks.items():
                if task.done() and not task.cancelled() and task.exception() is not None:
                    raise AssertionError(f"{name} crashed") from task.exception()
            if condition():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(
            f"not within {seconds} s: {what}; "
            + "; ".join(e.text for e in self.events()[-12:])
            + str({n: a.accounts.note for n, a in self.agents.items()})
        )

    async def until_step(self, step: int, seconds: float = 30.0) -> None:
        await self.until(lambda: self.coordinator.protocol.head >= step, f"step {step}", seconds)

    async def until_finished(self, *names: str) -> None:
        await self.until(lambda: all(self.trainers[n].stopped == "" for n in names), "finished")

    @property
    def head(self) -> int:
        return self.coordinator.protocol.head

    def ready(self) -> set[str]:
        """The agents whose state is the head, as the coordinator sees it."""
        return {member.island for member in self.coordinator.protocol.members.ready(self.head)}

    def events(self):
        return EventReader(self.events_path).read()

    def assert_equal_roots(self) -> None:
        """Check that every root that a trainer loaded is the committed one of its step."""
        records = self.store.commits()
        roots = [self.genesis_root, *(r.next_root for r in records)]
        for trainer in self.trainers.values():
            for step, loaded in trainer.roots.items():
                assert loaded == roots[step], f"{trainer.name} at {step}"

    async def stop(self) -> None:
        for name in list(self.tasks):
            await self.kill(name)
        self.end_coordinator()
