"""Many scripted agents in one process: real control lines with certificates, and nothing behind them.

`python -m agents.crowd OPTIONS` (JSON). Each says Hello, is pinged back at a port of its own, beats as a real
one, is ready at once, "trains" for a fixed time, proposes, reports its slices as reduced and the update as
held, with digests that all make up alike. No byte of a model travels: only the coordinator works.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

import msgspec

from atoll import recipe as recipes
from atoll.agent import diloco
from atoll.agent.link import BEAT_SECONDS
from atoll.agent.membership import island_key
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.store import Store
from atoll.metrics import Metrics
from atoll.run.directory import RunDir
from atoll.run.processes import watch_leash
from atoll.swarm import audit
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.address import Address
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, Credentials, RunKeys
from atoll.swarm.layout import digest
from atoll.swarm.messages import control
from atoll.swarm.services import CONTROL, PING
from atoll.swarm.transport import Stream, TransportError, together

QUIET_SECONDS = 60.0
SPREAD_SECONDS = 2.0  # proposals and first dials are spread over so long
METRICS = Metrics(loss=1.0, tokens_per_second=1.0, gradient_norm=1.0, learning_rate=0.001)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    run_dir: str
    directory: str  # for keys
    coordinator: Address
    host: str
    islands: int
    train_seconds: float


class Scripted:
    """One of them."""

    def __init__(self, number: int, options: Options, keys: RunKeys, run: r.RunInfo, hello: m.Hello) -> None:
        directory = Path(options.directory) / str(number)
        directory.mkdir(parents=True, exist_ok=True)
        self.island, key, request = island_key(directory)
        self._transport = GrpcTransport(Credentials(key, keys.issue(request), keys.authority))
        self._options, self._run, self._hello = options, run, hello
        self._head, self._root = 0, run.genesis_root
        self._attempt: r.Attempt | None = None
        self._training: asyncio.Task[None] | None = None
        self._outbox: asyncio.Queue[control.ToCoordinator] = asyncio.Queue()

    async def live(self) -> None:
        await asyncio.sleep(random.uniform(0, SPREAD_SECONDS) * self._options.islands / 50)
        port = await self._transport.serve(Address(self._options.host, 0), {PING: _pong})
        while True:
            try:
                stream = await self._transport.connect(
                    (self._options.coordinator,), COORDINATOR, CONTROL, 30.0
                )
                hello = msgspec.structs.replace(
                    self._hello, session=os.urandom(8).hex(), port=port, head=self._head, head_root=self._root
                )
                self._outbox = asyncio.Queue()
                await stream.send(hello)
                await together(self._read(stream), self._write(stream), self._beat())
            except TransportError as error:
                print(f"{self.island}: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(1.0)

    async def _read(self, stream: Stream[control.ToAgent]) -> None:
        while True:
            message, _ = await stream.receive(QUIET_SECONDS)
            for answer in self._answers(message):
                self._outbox.put_nowait(answer)

    async def _write(self, stream: Stream[control.ToAgent]) -> None:
        while True:
            await stream.send(await self._outbox.get())

    async def _beat(self) -> None:
        while True:
            self._outbox.put_nowait(m.Beat(step=self._head, inner_step=1, metrics=METRICS, note="training"))
            await asyncio.sleep(BEAT_SECONDS)

    def _answers(self, message: control.ToAgent) -> list[control.ToCoordinator]:
        match message:
            case m.Welcome():
                self._head, self._root = message.head, message.head_root
                return [m.Ready(self._head, self._root, self._root)]
            case r.Plan():
                self._training = asyncio.create_task(self._train(message))
            case r.Attempt():
                self._attempt = message
                own = [k for k, part in enumerate(message.slices) if part.owner == self.island]
                norms = (1.0,) * len(message.participants)
                return [
                    m.Reduced(
                        step=message.step,
                        number=message.number,
                        slice=k,
                        digest=digest(b"slice %d" % k),
                        squared_norms=norms,
                    )
                    for k in own
                ]
            case r.Assembled() if self._attempt is not None and self._attempt.number == message.number:
                update = _update(self._attempt, message)
                nothing = bytes(audit.ROW_BYTES * len(audit.groups(self._attempt.slices)))
                return [
                    m.Held(
                        step=message.step,
                        number=message.number,
                        update=update,
                        next_root=_next_root(message.step),
                        measure=nothing,
                        own_measure=nothing,
                    )
                ]
            case m.Committed():
                self._head, self._root = message.record.step + 1, message.record.next_root
                return [m.Ready(self._head, self._root, self._root)]
            case _:
                pass
        return []

    async def _train(self, plan: r.Plan) -> None:
        await asyncio.sleep(self._options.train_seconds + random.uniform(0, SPREAD_SECONDS))
        tokens = plan.num_samples * self._run.recipe["inner"]["context_length"]
        self._outbox.put_nowait(
            m.Propose(
                step=plan.step,
                parent=plan.parent,
                lease=plan.lease,
                payload=digest(self.island.encode()),
                tokens=tokens,
                inner_steps=plan.inner_steps,
                loss=1.0,
                norm=1.0,
                metrics=METRICS,
            )
        )


_known: dict[tuple[int, int], bytes] = {}  # digests of headers: one for all that this process plays


def _update(attempt: r.Attempt, assembled: r.Assembled) -> bytes:
    key = (assembled.step, assembled.number)
    if key not in _known:
        _known[key] = r.header(attempt, assembled).digest()
    return _known[key]


def _next_root(step: int) -> bytes:
    return digest(b"state %d" % (step + 1))


async def _pong(stream: Stream[m.Ping]) -> None:
    await stream.receive(10.0)
    await stream.send(m.Pong())


async def crowd(options: Options) -> None:
    run_dir = RunDir(Path(options.run_dir))
    recipe = recipes.load(run_dir.recipe)
    keys = RunKeys(run_dir.coordinator, recipe.name)
    info = Store(sqlite_url(run_dir.coordinator)).info()
    assert info is not None
    run = r.decode(info, r.RunInfo)
    hello = m.Hello(
        session="",
        version=m.VERSION,
        recipe_digest=recipe.digest(),
        self_test=diloco.self_test(),
        contributor="crowd",
        relay=False,
        port=0,
        addresses=(),
        head=0,
        head_root=run.genesis_root,
        term=r.Term(),
    )
    agents = [Scripted(number, options, keys, run, hello) for number in range(options.islands)]
    await asyncio.gather(*(agent.live() for agent in agents))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    watch_leash()
    asyncio.run(crowd(msgspec.json.decode(sys.argv[1], type=Options)))
