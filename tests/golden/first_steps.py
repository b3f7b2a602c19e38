"""The golden losses: what the first 21 inner and 3 outer steps of golden.toml give, on the loop that ships.

    python tests/golden/first_steps.py      # rewrites golden.json: with changes of computation only

`train.train` runs as it does on an island. Its agent is a thread here, without a coordinator and a clock, so
that nothing depends on time; what the agent does to bytes (encode, reduce, apply) is production's.
"""

import asyncio
import json
import platform
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

from atoll import recipe as recipes
from atoll.agent import membership, payload
from atoll.agent.assembly import Assembly
from atoll.agent.frames import frame, read_frame
from atoll.agent.line import AgentLine
from atoll.agent.log import UpdateLog
from atoll.agent.reduce import Reduction
from atoll.agent.settings import Settings
from atoll.agent.state import OuterState
from atoll.island.ranks import Ranks
from atoll.mesh import ElasticDeviceMesh, Swarm
from atoll.recipe import Recipe
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.swarm import messages as m
from atoll.swarm.identity import RunKeys, common_name, island_key
from atoll.swarm.layout import root
from atoll.swarm.messages.trainer import AGENT_DOOR
from atoll.swarm.records import Assembled, Attempt, Plan, RunInfo, Share, Slice, Term, header
from atoll.train import train

HERE = Path(__file__).parent
FILE = HERE / "golden.json"
CASES = {
    "adamw-int8": ["inner.optimizer={type='adamw', lr=3e-3}", "outer.codec=int8"],
    "muon-bf16": ["inner.optimizer={type='muon', lr=0.01}", "outer.codec=bf16"],
}


def environment() -> dict[str, str]:
    """What decides the last bits of a matrix product on a CPU."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    vendor = next(
        (line.partition(": ")[2] for line in lines if line.startswith("vendor_id")), platform.processor()
    )
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__,
        "vectors": capability,
        "vendor": vendor,
        "machine": platform.machine(),
    }


def losses_and_roots(case: str, directory: Path) -> dict[str, list[str]]:
    """The loss of every inner step, as hexadecimal fp64, and the root of every outer state after the
    first.
    """
    recipe = recipes.load(HERE / "golden.toml", CASES[case])
    run_dir = RunDir(directory)
    prepare(recipe, run_dir, lambda _: None)
    island = run_dir.islands / "island"
    run = enrol(run_dir, island, recipe)
    losses: list[str] = []
    before = torch.get_num_threads()
    ranks = Ranks.of_torchrun()
    try:
        agent = ThreadAgent(island, run, run_dir, recipe)
        line = AgentLine(Settings(directory=island), start=lambda *_: agent)
        with ElasticDeviceMesh(ranks, Swarm(ranks, line)) as mesh:
            train(
                mesh, recipe.island, island, lambda plan, number, metrics: losses.append(metrics.loss.hex())
            )
    finally:
        ranks.close()
        torch.set_num_threads(before)
    return {"losses": losses, "roots": agent.roots}


def enrol(run_dir: RunDir, island: Path, recipe: Recipe) -> RunInfo:
    """Make `island` a member of a run without a coordinator."""
    keys, state_0 = RunKeys(run_dir.coordinator, recipe.name), run_dir.state_0()
    run = RunInfo(
        run_id=common_name(keys.authority),
        name=recipe.name,
        recipe=recipe.shared(),
        genesis_root=state_0.root,
        layout=state_0.layout,
        data_digest="",
        record_key=keys.record_key,
    )
    certificate = keys.issue(island_key(island)[2])
    membership._keep(
        island,
        membership.Membership(
            addresses=(), run_id=run.run_id, certificate=certificate, authority=keys.authority, run=run
        ),
    )
    return run


class ThreadAgent:
    """The only agent of a swarm of one: it owns everything, and every update is committed."""

    alive = True

    def __init__(self, island: Path, run: RunInfo, run_dir: RunDir, recipe: Recipe) -> None:
        self.roots: list[str] = []
        self.socket, self._far = socket.socketpair()
        self._run, self._run_dir, self._recipe, self._island = run, run_dir, recipe, island
        self._state, self._log = (
            OuterState(island / "state", run.layout),
            UpdateLog(island / "log", run.layout, b""),
        )
        state_0 = run_dir.state_0()
        for chunk in range(run.layout.num_chunks):
            self._state.write(chunk, 0, state_0.chunk(chunk))
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> int:
        self.socket.close()
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return 0

    def _live(self) -> None:
        try:
            while not self._answer(read_frame(self._far, AGENT_DOOR)):
                pass
        except BaseException as error:
            self._error = error
        finally:
            self._far.close()

    def _say(self, message: Any) -> None:
        self._far.sendall(frame(message))

    def _answer(self, message: Any) -> bool:
        """Whether the run is finished."""
        state = self._state
        match message:
            case m.WantData():
                self._say(m.DataAt(message.number, str(self._run_dir.data)))
            case m.Attached():
                self._order_adopt()
            case m.Adopted():
                assert message.loaded == root(state.table())
                if state.version == self._recipe.num_outer_steps:
                    self._say(m.Stopped(""))
                    return True
                self._say(m.Work(self._plan()))
            case m.Proposed():
                self._commit(message)
                self._order_adopt()
        return False

    def _order_adopt(self) -> None:
        table = self._state.table()
        self._say(m.Adopt(self._state.version, root(table), table))

    def _plan(self) -> Plan:
        step, inner_steps = self._state.version, self._recipe.outer.inner_steps
        count = inner_steps * self._recipe.windows_per_step
        return Plan(
            term=Term(),
            step=step,
            parent=b"",
            island="me",
            lease=((step * count, count),),
            stage_starts=(0,),
            inner_steps=inner_steps,
            first_inner_step=step * inner_steps,
        )

    def _commit(self, done: m.Proposed) -> None:
        state, outer, layout = self._state, self._recipe.outer, self._run.layout
        objective = self._recipe.objective
        empty = m.Propose(
            step=done.step,
            parent=b"",
            lease=(),
            payload=b"",
            tokens=done.tokens,
            inner_steps=done.inner_steps,
            loss=done.loss,
            norm=0.0,
        )
        mine = payload.make(self._island, state, outer.codec, empty)
        slices = (Slice("me", 0, layout.num_pieces),)
        attempt = Attempt(
            term=Term(),
            step=done.step,
            number=1,
            parent=b"",
            codec=outer.codec,
            lr=objective.outer_lr,
            momentum=objective.outer_momentum,
            participants=(Share(island="me", payload=mine.proposal.payload, tokens=done.tokens, weight=1.0),),
            slices=slices,
            addresses={"me": ()},
        )
        reduced: list[Any] = []

        async def reduce() -> Assembly:
            async def report(message: Any) -> None:
                reduced.append(message)

            assembly = Assembly(self._log.directory, layout, attempt)
            await Reduction("me", attempt, assembly, mine, 10.0, report).run(None)  # type: ignore[arg-type]
            return assembly

        assembly = asyncio.run(reduce())
        head = header(attempt, Assembled(term=Term(), step=done.step, number=1, digests=(reduced[0].digest,)))
        table = assembly.apply_and_finish(state, self._log, head)
        for chunk in range(layout.num_chunks):
            assert state.apply(head, assembly.pieces, chunk, table[64 * chunk : 64 * chunk + 64])
        self.roots.append(root(table).hex())


def main() -> None:
    found: dict[str, Any] = {"environment": environment()}
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            found[case] = losses_and_roots(case, Path(directory))
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
