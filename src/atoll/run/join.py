"""`atoll join`: this machine becomes an island. And `atoll train`: a swarm of one.

Under torchrun (`torchrun --nproc-per-node 8 -m atoll join TICKET`) all its processes are one island. Every
rank trains; rank 0 also locks the island's directory, starts the agent and writes to the terminal.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from atoll import recipe as recipes
from atoll.agent.settings import Settings
from atoll.recipe import Recipe
from atoll.run.directory import IslandDir, RunDir
from atoll.run.genesis import prepare
from atoll.run.processes import Child
from atoll.swarm.identity import Ticket
from atoll.terminal import Terminal

if TYPE_CHECKING:  # it imports torch, which takes seconds and is not needed for `--help`
    from atoll.island.ranks import Ranks


def agent_settings(
    run_dir: RunDir, directory: Path, contributor: str, listen: str, dial_only: bool, relay: bool = False
) -> Settings:
    """The settings of an agent in `directory`. It takes state 0 and data from `run_dir` if they are there.

    `listen` is HOST:PORT for its peers; port 0 is any free one.
    """
    host, _, port = listen.rpartition(":")
    return Settings(
        directory=directory,
        coordinator="",
        contributor=contributor,
        relay=relay,
        host=host or "0.0.0.0",
        port=int(port),
        dial_only=dial_only,
        checkpoint_dirs=(run_dir.genesis,),
        data_dirs=(run_dir.data,),
        private_dir=run_dir.private,
    )


def join(
    ticket: str,
    run_dir: RunDir | None,
    *,
    name: str,
    contributor: str,
    listen: str,
    dial_only: bool,
    own: recipes.Island,
    terminal: Terminal,
) -> None:
    """Train as an island of the ticket's run until that run is finished. All ranks call this.

    `run_dir` defaults to `runs/NAME`, `name` to the first island directory that is not locked. `own` is this
    machine's part of the recipe. Raises UserError for what cannot be used.
    """
    from atoll.island.ranks import Ranks

    with closing(Ranks.of_torchrun()) as ranks:
        run_dir = run_dir or RunDir(Path("runs") / Ticket.parse(ticket).run_name)
        _train(
            ranks,
            ticket,
            run_dir,
            name=name,
            contributor=contributor,
            listen=listen,
            dial_only=dial_only,
            own=own,
            terminal=terminal,
        )


def train_alone(recipe: Recipe, run_dir: RunDir, terminal: Terminal) -> None:
    """Train a swarm of one until its run is finished. All ranks call this.

    It is the same loop, with a coordinator of its own on the loopback interface. Raises UserError for what
    cannot be used.
    """
    from atoll.island.ranks import Ranks
    from atoll.run.host import wait_for_ticket

    with ExitStack() as stack:
        ranks = stack.enter_context(closing(Ranks.of_torchrun()))

        def host() -> str:
            terminal.prepared(prepare(recipe, run_dir, terminal.preparing))
            log = run_dir.coordinator / "host.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            started = time.time()
            options = ["--dir", str(run_dir.path), "--listen", "127.0.0.1:0", "--no-relay"]
            child = Child(["atoll", "host", str(run_dir.recipe), *options], log=log)
            stack.callback(child.stop)
            return wait_for_ticket(run_dir.coordinator / "ticket", child, started)

        # The other ranks wait until rank 0 has prepared the data: if that takes hours, `atoll prepare` first.
        ticket = ranks.first(host)
        _train(
            ranks,
            ticket,
            run_dir,
            name="alone",
            contributor="",
            listen="127.0.0.1:0",
            dial_only=False,
            own=recipe.island,
            terminal=terminal,
        )


def _train(
    ranks: Ranks,
    ticket: str,
    run_dir: RunDir,
    *,
    name: str,
    contributor: str,
    listen: str,
    dial_only: bool,
    own: recipes.Island,
    terminal: Terminal,
) -> None:
    from atoll.mesh import ElasticDeviceMesh, Swarm
    from atoll.train import train

    terminal.console.quiet = ranks.number > 0
    locked: list[IslandDir] = []  # on rank 0; referenced until training ends, so that the lock is kept

    def lock() -> Path:
        locked.append(IslandDir(run_dir, name))
        return locked[0].path

    directory = ranks.first(lock)
    settings = agent_settings(run_dir, directory, contributor, listen, dial_only)
    terminal.say(f"island directory {directory}; its agent's log is {directory / 'agent.log'}")
    with ElasticDeviceMesh(ranks, Swarm.start(ranks, settings, ticket, directory / "agent.log")) as mesh:
        terminal.joined(mesh.swarm.island, mesh.swarm.run)
        summary = train(mesh, own, directory, terminal.inner_step, terminal.say)
    terminal.trained(summary)
