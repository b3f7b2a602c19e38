"""`atoll join`: this machine becomes an island. Also how `atoll train` makes a swarm of one."""

import time
from pathlib import Path

from atoll import recipe as recipes
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.files import DirectoryLock
from atoll.genesis import RunDir, prepare
from atoll.processes import Child
from atoll.recipe import Recipe
from atoll.swarm.identity import Ticket
from atoll.terminal import Terminal

ISLAND_PREFIX = "island-"


class IslandDir:
    """A directory for one island, ours while this process lives."""

    def __init__(self, run_dir: RunDir, name: str) -> None:
        """`name` may be empty: the first that no living process holds, so that whoever died comes back as itself.

        Raises UserError when the named one is taken.
        """
        if name:
            self.path, self._lock = run_dir.islands / name, DirectoryLock(run_dir.islands / name / "trainer")
            if not self._lock.acquire():
                raise UserError(f"{self.path}: another process trains here; choose another --name")
            return
        number = 1
        while True:
            self.path = run_dir.islands / f"{ISLAND_PREFIX}{number}"
            self._lock = DirectoryLock(self.path / "trainer")
            if self._lock.acquire():
                return
            self._lock.release()
            number += 1


def agent_settings(run_dir: RunDir, directory: Path, contributor: str, listen: str, dial_only: bool,
                   relay: bool = False) -> Settings:  # fmt: skip
    """How an agent in `directory` takes part; state 0 and data are taken from the run directory where they are there."""
    host, _, port = listen.rpartition(":")
    return Settings(directory, "", contributor, relay, host or "0.0.0.0", int(port), dial_only, (run_dir.genesis,),
                    (run_dir.data,))  # fmt: skip


def join(ticket: str, run_dir: RunDir | None, name: str, contributor: str, listen: str, dial_only: bool,
         own: recipes.Island, terminal: Terminal) -> None:  # fmt: skip
    """Train as an island of the run that the ticket names, until that run is finished."""
    from atoll.mesh import ElasticDeviceMesh
    from atoll.train import train

    run_dir = run_dir or RunDir(Path("runs") / Ticket.parse(ticket).run_name)
    island = IslandDir(run_dir, name)
    settings = agent_settings(run_dir, island.path, contributor, listen, dial_only)
    terminal.say(f"island directory {island.path}; its agent's log is {island.path / 'agent.log'}")
    with ElasticDeviceMesh.join(ticket, island.path, settings=settings, log=island.path / "agent.log") as mesh:
        terminal.joined(mesh.swarm.island, mesh.swarm.run)
        summary = train(mesh, own, island.path, terminal.inner_step)
    terminal.trained(summary)


def train_alone(recipe: Recipe, run_dir: RunDir, terminal: Terminal) -> None:
    """A swarm of one, on the same loop: a coordinator of its own on loopback, and this island."""
    from atoll.host import wait_for_ticket

    terminal.prepared(prepare(recipe, run_dir, terminal.preparing))
    log = run_dir.coordinator / "host.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.time()
    arguments = ["atoll", "host", str(run_dir.recipe), "--dir", str(run_dir.path), "--listen", "127.0.0.1:0", "--no-relay"]
    host = Child(arguments, log=log)
    try:
        ticket = wait_for_ticket(run_dir.coordinator / "ticket", host, started)
        join(ticket, run_dir, "alone", "", "127.0.0.1:0", False, recipe.island, terminal)
    finally:
        host.stop()
