"""`atoll host --rewind`: the operator goes back, and every island follows, however late it hears of it."""

import asyncio
import time
from itertools import pairwise

import pytest
from worlds.clock import run
from worlds.swarm import Swarm

from atoll.errors import UserError
from atoll.swarm.records import is_valid_after

NAMES = ("r", "a", "b", "c")


async def begun(directory, steps: int, last: int = 12) -> Swarm:
    swarm = Swarm(directory, num_outer_steps=last)
    await swarm.start_coordinator()
    for name in NAMES:
        swarm.start(name, relay=name == "r", step_seconds=0.02)
    await swarm.until_step(steps)
    return swarm


def test_the_run_goes_on_from_an_older_state_on_a_new_branch(tmp_path) -> None:
    async def main() -> None:
        swarm = await begun(tmp_path, 6)
        before = swarm.store.commits()
        await swarm.kill_coordinator()
        await swarm.start_coordinator(rewind=3)
        await swarm.until_finished("a", "b", "c")
        after = swarm.store.commits()
        assert after[:3] == before[:3]
        assert [record.branch for record in after] == [0] * 3 + [1] * 9
        assert after[3].parent == before[3].parent and after[3].digest() != before[3].digest()
        spent = sorted(part for record in after for _, lease in record.leases for part in lease)
        assert all(sum(one) <= other[0] for one, other in pairwise(spent)), "no sample twice"
        assert any(event.kind == "rewound" for event in swarm.events())
        swarm.assert_equal_roots()
        for name in NAMES:
            assert swarm.agents[name].work.log.records == after
        await swarm.stop()

    run(main())


def test_an_island_that_was_away_follows_two_rewinds(tmp_path) -> None:
    async def main() -> None:
        swarm = await begun(tmp_path, 7)
        await swarm.kill("c")
        await swarm.kill_coordinator()
        await swarm.start_coordinator(rewind=5)
        await swarm.until_step(8)
        await swarm.kill_coordinator()
        await swarm.start_coordinator(rewind=4)
        await swarm.until_step(5)
        swarm.start("c", step_seconds=0.02)
        await swarm.until_finished("a", "b", "c")
        records = swarm.agents["c"].work.log.records
        assert records == swarm.store.commits()
        assert all(is_valid_after(record, swarm.agents["c"].work.log.rewinds) for record in records)
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())


def test_a_rewind_to_a_state_that_does_not_exist_is_refused_and_changes_nothing(tmp_path) -> None:
    async def main() -> None:
        swarm = await begun(tmp_path, 2)
        await swarm.kill_coordinator()
        before = None
        for step in (-1, 50):
            text = f"--rewind {step}: this run has [0-9]+ commits; go back to a state before"
            with pytest.raises(UserError, match=text):
                await swarm.start_coordinator(rewind=step)
            commits = swarm.store.commits()
            assert before in (None, commits) and len(commits) >= 2
            before = commits
            await swarm.kill_coordinator()
        await swarm.start_coordinator()
        await swarm.until_finished("a", "b", "c")
        await swarm.stop()

    run(main())


def test_a_database_from_before_a_rewind_decides_nothing(tmp_path) -> None:
    async def main() -> None:
        swarm = await begun(tmp_path, 5, last=40)
        await swarm.kill_coordinator()
        backup = {path.name: path.read_bytes() for path in (tmp_path / "db").glob("run.sqlite*")}
        await swarm.start_coordinator(rewind=2)
        await swarm.until_step(4)
        history = swarm.store.commits()
        await swarm.kill_coordinator()
        for path in (tmp_path / "db").glob("run.sqlite*"):
            path.unlink()
        for name, data in backup.items():
            (tmp_path / "db" / name).write_bytes(data)
        since = time.time()
        await swarm.start_coordinator()
        text = "that --rewind again"
        await swarm.until(lambda: any(text in event.text for event in swarm.events()), "the event")
        await asyncio.sleep(0.5)
        assert not any(event.kind == "attempt" for event in swarm.events() if event.time > since)
        await swarm.kill_coordinator()
        await swarm.start_coordinator(rewind=2)
        await swarm.until_step(len(history) + 2, seconds=90)
        assert swarm.store.commits()[: len(history)] == history
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())
