"""Processes that a host keeps beside itself: they end with it, and are started again when they have died."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from atoll.agent.process import agent_process
from atoll.agent.settings import Settings
from atoll.run.directory import RunDir
from atoll.run.processes import Child
from atoll.swarm.address import Address, Addresses

CHECK_SECONDS = 1.0  # between two looks at whether one lives
MAX_PAUSE_SECONDS = 60.0  # of one that dies young again and again


async def keep_relay(run_dir: RunDir, ticket: str, listen: Address, advertise: Addresses) -> None:
    """Run a relay until cancelled."""
    settings = Settings(
        directory=relay_dir(run_dir),
        contributor="relay",
        relay=True,
        listen=listen,
        advertise=advertise,
        checkpoint_dirs=(run_dir.genesis,),
        data_dirs=(run_dir.data,),
    )
    log = run_dir.coordinator / "relay.log"
    await _keep(lambda: agent_process(settings, ticket, log))


async def keep_dashboard(run_dir: RunDir, listen: Address) -> None:
    """Serve the run's page until cancelled, in a process of its own: no watcher shall delay a decision."""
    arguments = ["atoll", "dashboard", str(run_dir.path), "--listen", str(listen)]
    await _keep(lambda: Child(arguments, log=run_dir.coordinator / "dashboard.log"))


def relay_dir(run_dir: RunDir) -> Path:
    """Where the relay of a host lies."""
    return run_dir.islands / "relay"


async def _keep(start: Callable[[], Child]) -> None:
    """Start a process again whenever it has died; end it when cancelled."""
    child, pause, started = start(), CHECK_SECONDS, time.monotonic()
    try:
        while True:
            await asyncio.sleep(pause)
            if not child.alive:
                # One that cannot go on, since it was evicted say, is not tried every second for ever.
                died_young = time.monotonic() - started < MAX_PAUSE_SECONDS
                pause = min(2 * pause, MAX_PAUSE_SECONDS) if died_young else CHECK_SECONDS
                child.stop(0.1)
                child, started = start(), time.monotonic()
    finally:
        await asyncio.to_thread(child.stop)
