"""`atoll join`: this machine becomes an island. And `atoll train`: a swarm of one.

Under torchrun (`torchrun --nproc-per-node 8 -m atoll join TICKET`) all its processes are one island. Every
rank trains; rank 0 also locks the island's directory, starts the agent and writes to the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from atoll import recipe as recipes
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.run.captured import check_captured
from atoll.run.contributed import contributed
from atoll.run.directory import IslandDir, RunDir
from atoll.run.genesis import prepare
from atoll.run.processes import Child, last_words
from atoll.swarm.address import Address, Addresses
from atoll.terminal import Joiner, Preparing, Relay, Terminal

if TYPE_CHECKING:  # it imports torch, which takes seconds and is not needed for `--help`
    from atoll.island.ranks import Ranks


class JoinSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How this machine takes part in a run."""

    name: str = ""  # of the island's directory; "": the first that is not locked
    contributor: str = ""  # who gets the credit
    place: str = ""  # where this machine stands, for the map of the model card
    link: str = ""  # a page about the contributor
    listen: Address = Address("0.0.0.0", 0)  # where the agent listens for peers; port 0: any that is free
    advertise: Addresses = ()  # where peers reach it, besides at the host that it dials from
    dial_only: bool = False  # the agent does not listen
    relay: bool = False  # there is no trainer
    metered: bool = False  # the agent gives no state and no data

    def agent(self, run_dir: RunDir, directory: Path, own: recipes.Island) -> Settings:
        """The settings of the agent in `directory`, which takes state 0 and data from `run_dir` if it can."""
        return Settings(
            directory=directory,
            contributor=self.contributor,
            place=self.place,
            link=self.link,
            relay=self.relay,
            listen=self.listen,
            advertise=self.advertise,
            dial_only=self.dial_only,
            checkpoint_dirs=(run_dir.genesis,),
            data_dirs=(run_dir.data,),
            private_dir=run_dir.private,
            metered=self.metered,
            upload_mbit=own.upload_mbit,
            download_mbit=own.download_mbit,
        )


def join(
    ticket: str, run_dir: RunDir, settings: JoinSettings, own: recipes.Island, terminal: Terminal
) -> None:
    """Train as an island of the ticket's run until it is finished, or relay for it. All ranks call this.

    `own` is this machine's part of the recipe. Raises UserError for what cannot be used.
    """
    if settings.relay:
        _relay(ticket, run_dir, settings, own, terminal)
        return
    from atoll.island.ranks import Ranks

    with closing(Ranks.of_torchrun()) as ranks:
        _train(ranks, ticket, run_dir, settings, own, terminal)


def train_alone(recipe: Recipe, run_dir: RunDir, terminal: Terminal, start: RunDir | None = None) -> None:
    """Train a swarm of one until its run is finished. All ranks call this.

    It is the same loop, with a coordinator of its own on the loopback interface. `start`: the run whose end
    it begins from. Raises UserError for what cannot be used.
    """
    if (needed := recipe.outer.min_participants) > 1:
        raise UserError(
            f"outer.min_participants = {needed}: one island alone makes no such update; set it to 1, or "
            "host the run (`atoll host`) and let others join"
        )
    from atoll.island.ranks import Ranks
    from atoll.run.host import kept_ticket, wait_for_ticket

    hosts: list[Child] = []  # on rank 0

    def check() -> None:
        if hosts and not hosts[0].alive:
            raise UserError(f"the coordinator of this run has ended; {last_words(hosts[0])}")

    with ExitStack() as stack:
        ranks = stack.enter_context(closing(Ranks.of_torchrun()))

        def host() -> str:
            preparing = Preparing(terminal)
            preparing.done(prepare(recipe, run_dir, preparing.report, terminal.tell, start=start))
            check_captured(recipe, run_dir)
            log = run_dir.coordinator / "host.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            before = kept_ticket(run_dir.coordinator / "ticket")
            child = Child(
                ["atoll", "host", str(run_dir.path), "--listen", "127.0.0.1:0", "--no-relay"], log=log
            )
            stack.callback(child.stop)
            hosts.append(child)
            return wait_for_ticket(run_dir.coordinator / "ticket", child, before)

        # The other ranks wait until rank 0 has prepared the data: if that takes hours, `atoll prepare` first.
        ticket = ranks.first(host)
        settings = JoinSettings(name="alone", listen=Address("127.0.0.1", 0))
        _train(ranks, ticket, run_dir, settings, recipe.island, terminal, check)


def _relay(
    ticket: str, run_dir: RunDir, settings: JoinSettings, own: recipes.Island, terminal: Terminal
) -> None:
    from atoll.agent.__main__ import relay

    speaker = Relay(terminal)
    directory = run_dir.islands / (settings.name or "relay")
    with run_dir.member(directory, run_dir.existing()):
        relay(
            settings.agent(run_dir, directory, own), ticket, lambda pulse: speaker.hears(pulse, time.time())
        )


def _train(
    ranks: Ranks,
    ticket: str,
    run_dir: RunDir,
    settings: JoinSettings,
    own: recipes.Island,
    terminal: Terminal,
    check: Callable[[], None] = lambda: None,
) -> None:
    from atoll.mesh import ElasticDeviceMesh, Swarm
    from atoll.train import train

    terminal.console.quiet = ranks.number > 0
    locked: list[IslandDir] = []  # on rank 0; referenced until training ends, so that the lock is kept

    def lock() -> Path:
        locked.append(IslandDir(run_dir, settings.name))
        return locked[0].path

    speaker, before = Joiner(terminal), run_dir.existing()
    with ExitStack() as stack:
        directory = ranks.first(lock)
        if ranks.number == 0:
            stack.enter_context(run_dir.member(directory, before))
        log = directory / "agent.log"
        terminal.say(f"island directory {directory}; its agent's log is {log}")
        speaker.starts()
        swarm = Swarm.start(
            ranks, settings.agent(run_dir, directory, own), ticket, log, terminal.say, check, speaker.hears
        )
        mesh = stack.enter_context(ElasticDeviceMesh(ranks, swarm))
        speaker.joined(mesh.swarm.island, mesh.swarm.run)
        if mesh.swarm.run.recipe["model"].get("own"):
            raise UserError(
                f"{mesh.swarm.run.run_id} trains a module of its own: start its program with this ticket and "
                f"{directory} as its directory, as in examples/own_loop.py"
            )
        try:
            summary = train(mesh, own, directory, speaker.inner_step, terminal.say)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM: the agent leaves first, then it is told
            stack.close()
            if ranks.number == 0:
                speaker.left(contributed(run_dir, mesh.swarm.island))
            raise
    speaker.trained(summary)
