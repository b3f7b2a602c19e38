"""How much of a step unequal and changing islands do."""

import asyncio

from worlds.clock import run
from worlds.swarm import Swarm
from worlds.trainer import TRAINER

from atoll.samples import num_samples


def inner_steps_done(swarm: Swarm, step: int) -> dict[str, int]:
    """By island; an inner step is of 2 samples."""
    return {island: num_samples(lease) // 2 for island, lease in swarm.store.commits()[step].leases}


def test_when_a_fast_island_leaves_the_others_do_all_inner_steps_again(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=60)
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=1.0)
        await swarm.until_step(3)
        swarm.start("fast", step_seconds=1.0 / 15)
        await swarm.until(lambda: "fast" in inner_steps_done(swarm, -1), "fast takes part")
        head = len(swarm.store.commits())
        await swarm.until_step(head + 8)
        beside = [inner_steps_done(swarm, step) for step in range(head + 3, head + 8)]
        assert all(done["fast"] == 4 and max(done[i] for i in "abc") < 4 for done in beside)
        await swarm.kill("fast")
        head = len(swarm.store.commits())
        await swarm.until_step(head + 3)
        for step in (head + 1, head + 2):
            assert inner_steps_done(swarm, step) == dict.fromkeys("abc", 4)
        await swarm.stop()

    run(main())


def test_islands_that_all_become_slower_do_all_inner_steps(tmp_path) -> None:
    """A machine gets other work, or the room gets hot: that is no reason to train less."""

    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=60)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.5)
        await swarm.until_step(6)
        for name in "ab":
            swarm.freeze(name + TRAINER)
        await asyncio.sleep(20.0)
        for name in "ab":
            swarm.thaw(name + TRAINER)
        await swarm.until_step(8)
        assert inner_steps_done(swarm, 6) == inner_steps_done(swarm, 7) == {"a": 4, "b": 4}
        await swarm.stop()

    run(main())
