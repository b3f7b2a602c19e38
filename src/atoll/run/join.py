"""`atoll join`: this machine becomes an island. Also how `atoll train` makes a swarm of one.

Under torchrun (`torchrun --nproc-per-node 8 -m atoll join TICKET`) all its processes are one island: rank 0
takes the directory, has the agent and speaks; every rank trains.
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

if TYPE_CHECKING:  # they need torch, which `--help` must not wait for
    from atoll.island.ranks import Ranks


def agent_settings(
    run_dir: RunDir, directory: Path, contributor: str, listen: str, dial_only: bool, relay: bool = False
) -> Settings:
    """How an agent in `directory` takes part; state 0 and data are taken from the run directory where they
    are there.
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
    name: str,
    contributor: str,
    listen: str,
    dial_only: bool,
    own: recipes.Island,
    terminal: Terminal,
) -> None:
    """Train as an island of the run that the ticket names, until that run is finished. All ranks call
    this.
    """
    from atoll.island.ranks import Ranks

    with closing(Ranks.of_torchrun()) as ranks:
        run_dir = run_dir or RunDir(Path("runs") / Ticket.parse(ticket).run_name)
        _train(ranks, ticket, run_dir, name, contributor, listen, dial_only, own, terminal)


def train_alone(recipe: Recipe, run_dir: RunDir, terminal: Terminal) -> None:
    """A swarm of one, on the same loop: a coordinator of its own on loopback, and this island. All ranks call
    this.
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
            where = ["--dir", str(run_dir.path), "--listen", "127.0.0.1:0", "--no-relay"]
            child = Child(["atoll", "host", str(run_dir.recipe), *where], log=log)
            stack.callback(child.stop)
            return wait_for_ticket(run_dir.coordinator / "ticket", child, started)

        ticket = ranks.first(host)  # the others wait: of data that takes hours, `atoll prepare` comes first
        _train(ranks, ticket, run_dir, "alone", "", "127.0.0.1:0", False, recipe.island, terminal)


def _train(
    ranks: Ranks,
    ticket: str,
    run_dir: RunDir,
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
    taken: list[IslandDir] = []  # rank 0's; it lasts as long as we train

    def take() -> Path:
        taken.append(IslandDir(run_dir, name))
        return taken[0].path

    directory = ranks.first(take)
    settings = agent_settings(run_dir, directory, contributor, listen, dial_only)
    terminal.say(f"island directory {directory}; its agent's log is {directory / 'agent.log'}")
    with ElasticDeviceMesh(ranks, Swarm.start(ranks, settings, ticket, directory / "agent.log")) as mesh:
        terminal.joined(mesh.swarm.island, mesh.swarm.run)
        summary = train(mesh, own, directory, terminal.inner_step, terminal.say)
    terminal.trained(summary)
