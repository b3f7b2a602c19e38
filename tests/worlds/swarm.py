"""A whole swarm in one process: real coordinator, agents and codec over the memory transport; trainers without torch."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import numpy as np

from atoll.agent import checkpoint, diloco, state
from atoll.agent.server import Agent
from atoll.agent.settings import Settings
from atoll.coordinator.rules import Rules
from atoll.coordinator.server import CoordinatorServer
from atoll.coordinator.store import Store, sqlite_url
from atoll.events import EventLog, read_events
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR, RunKeys
from atoll.swarm.layout import BLOCK, Layout, TensorSpec
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.records import Message, encode
from atoll.swarm.transport import TransportError

LAYOUT = Layout((TensorSpec("a", (3, BLOCK)), TensorSpec("b", (100,)), TensorSpec("c", (2, BLOCK))), 2 * BLOCK, BLOCK)
TARGET = np.float32(3.0)  # where every trainer pulls the parameters


class NumpyTrainer:
    """Pulls parameters towards TARGET, with noise of its own; remembers every root that it loaded."""

    def __init__(self, agent_state: state.OuterState, seed: int, step_seconds: float = 0.0) -> None:
        self.roots: dict[int, bytes] = {}
        self.stopped: str | None = None
        self.pause = asyncio.Event()
        self.pause.set()
        self._state = agent_state
        self._random = np.random.default_rng(seed)
        self._said: asyncio.Queue[m.AnyMessage] = asyncio.Queue()
        self._said.put_nowait(m.Attached())
        self._step_seconds = step_seconds
        self._parameters = np.zeros(LAYOUT.num_elements, np.float32)
        self._task: asyncio.Task[None] | None = None

    def tell(self, message: Message) -> None:
        match message:
            case m.Adopt():
                self._parameters = np.array(self._state.parameters)
                loaded = state.loaded_root(LAYOUT, message.table, self._parameters)
                self.roots[message.step] = loaded
                self._said.put_nowait(m.Adopted(message.step, loaded))
            case m.Work():
                self._task = asyncio.create_task(self._train(message))
            case m.Pulse():
                pass
            case m.Stopped():
                self.stopped = message.reason
            case _:
                raise AssertionError(f"unexpected {message}")

    async def hear(self) -> m.AnyMessage:
        return await self._said.get()

    async def _train(self, work: m.Work) -> None:
        plan = work.plan
        for inner in range(plan.inner_steps):
            await asyncio.sleep(self._step_seconds)
            noise = self._random.standard_normal(LAYOUT.num_elements).astype(np.float32)
            self._parameters += np.float32(0.05) * (TARGET - self._parameters) + np.float32(0.001) * noise
            self._said.put_nowait(m.Progress(plan.step, inner + 1, 1.0, 1.0))
        await self.pause.wait()
        self._state.local[:] = self._parameters
        self._said.put_nowait(m.Proposed(plan.step, 8 * plan.num_samples, plan.inner_steps, 1.0, 0.1))


class Swarm:
    """Start it, hurt it, look at it."""

    def __init__(self, directory: Path, num_outer_steps: int, **rules: object) -> None:
        self.directory = directory
        self.network = Network()
        self.keys = RunKeys(directory / "keys", "test")
        parameters = np.random.default_rng(0).standard_normal(LAYOUT.num_elements).astype(np.float32)
        self.genesis_root = checkpoint.flat_root(LAYOUT, parameters)
        checkpoint.save(directory / "genesis", LAYOUT, 0, self.genesis_root, parameters, None)
        recipe = {
            "outer": {"codec": "int8", "inner_steps": 4, "checkpoint_every": 10},
            "stage": [{"until": 4 * num_outer_steps}],
        }
        self.run = m.RunInfo("test-1", "test", recipe, self.genesis_root, LAYOUT, "", self.keys.record_key)
        self.rules = Rules("digest", diloco.self_test(), self.genesis_root, num_outer_steps, 4, 2, 8, (4 * num_outer_steps,),
                           "int8", 0.7, 0.9, 1, LAYOUT.num_pieces)  # fmt: skip
        self.rules = msgspec.structs.replace(self.rules, **rules)
        self.agents: dict[str, Agent] = {}
        self.trainers: dict[str, NumpyTrainer] = {}
        self.tasks: dict[str, asyncio.Task[str]] = {}
        self.events_path = directory / "events.jsonl"

    async def start_coordinator(self, **begin: int | None) -> None:
        self.store = Store(sqlite_url(self.directory / "db"))
        self.store.found(encode(self.run))
        self._clock: asyncio.Task[None] | None = None
        transport = MemoryTransport(self.network, COORDINATOR)
        self._log = EventLog(self.events_path)
        self.coordinator = CoordinatorServer(self.rules, self.run, self.keys, self.store, self._log, transport)
        await transport.serve("memory", 1, self.coordinator.services)
        self.coordinator.address = "memory:1"
        self.coordinator.begin(**begin)
        self._clock = asyncio.create_task(self.coordinator.keep_time())

    async def kill_coordinator(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self.network.sever(COORDINATOR)
        self.coordinator.deposed.cancel()
        self.store.close()
        self._log.close()

    def start(self, name: str, relay: bool = False, step_seconds: float = 0.0, **settings: object) -> None:
        directory = self.directory / name
        first = not self.agents or relay
        options = Settings(directory, "memory:1", name, relay, "memory", 0, False,
                           (self.directory / "genesis",) if first else (), ())  # fmt: skip
        options = msgspec.structs.replace(options, **settings)
        transport = MemoryTransport(self.network, name)
        agent = Agent(options, name, self.run, "digest", transport, None)
        if not relay:
            self.trainers[name] = NumpyTrainer(agent.state, seed=len(self.agents), step_seconds=step_seconds)
            agent._trainer = self.trainers[name]
        self.agents[name] = agent
        self.tasks[name] = asyncio.create_task(agent.run(), name=name)

    async def kill(self, name: str) -> None:
        """As kill -9 would: no goodbye, and what was not durable is gone with the process."""
        self.network.sever(name)
        task = self.tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TransportError):
            await task
        del self.agents[name]

    async def until(self, condition, what: str, seconds: float = 30.0) -> None:
        for _ in range(int(seconds / 0.01)):
            for name, task in self.tasks.items():
                if task.done() and task.exception() is not None:
                    raise AssertionError(f"{name} crashed") from task.exception()
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within {seconds} s: {what}; " + "; ".join(e.text for e in self.events()[-12:])
                             + str({n: a.note for n, a in self.agents.items()}))  # fmt: skip

    async def until_step(self, step: int, seconds: float = 30.0) -> None:
        await self.until(lambda: self.coordinator.protocol.head >= step, f"step {step}", seconds)

    async def until_finished(self, *names: str) -> None:
        await self.until(lambda: all(self.trainers[n].stopped == "" for n in names), "finished")

    def events(self):
        return read_events(self.events_path)[0]

    def assert_equal_roots(self) -> None:
        """Every root that any trainer ever loaded is the committed one of its step."""
        records = self.store.commits()
        roots = [self.genesis_root, *(r.next_root for r in records)]
        for name, trainer in self.trainers.items():
            for step, loaded in trainer.roots.items():
                assert loaded == roots[step], f"{name} at {step}"

    async def stop(self) -> None:
        for name in list(self.tasks):
            await self.kill(name)
        await self.kill_coordinator()
