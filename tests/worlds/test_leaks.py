"""What attempts that fail leave behind: nothing."""

import gc
from pathlib import Path

from worlds.clock import run
from worlds.swarm import Swarm

NUM_FAILED = 100


def mapped_updates() -> int:
    """How many updates in the making this process has mapped, deleted ones included."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[4] for line in lines if ".assembling.tmp" in line})  # inodes: one may have parts


def test_attempts_that_fail_leave_no_file_mapped(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=500)
        await swarm.start_coordinator()
        names = ("r", "a", "b", "c")
        for name in names:
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        await swarm.until_step(2)
        for name in "abc":
            for other in names:
                if name != other:
                    swarm.network.cut_edge(name, other)
        await swarm.until(
            lambda: sum(e.kind == "attempt closed" for e in swarm.events()) > NUM_FAILED,
            "attempts fail",
            50.0 * NUM_FAILED,
        )
        gc.collect()
        assert mapped_updates() <= 2 * len(names), "one that is reduced, and one that is being replaced"
        await swarm.stop()

    run(main())
