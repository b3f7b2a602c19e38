"""Three islands post-train together: one is killed and comes back, one joins late; all hold the same bits."""

from pathlib import Path

import pytest
from faults.processes import World
from unit.chats import chat_recipe
from unit.test_capture import quiet

from atoll.agent import membership
from atoll.agent.checkpoint import newest
from atoll.agent.log import UpdateLog
from atoll.post.verb import Asked, capture_for
from atoll.run.directory import RunDir
from atoll.run.genesis import prepare
from atoll.samples import merge, num_samples
from atoll.swarm.records import CommitRecord

NUM_INNER_STEPS, NUM_OUTER_STEPS = 1600, 400


def swarm_of(directory: Path, objective: str) -> World:
    recipe, run_dir = chat_recipe(directory, objective, until=NUM_INNER_STEPS), RunDir(directory / "run")
    prepare(recipe, run_dir, lambda _: None)
    if recipe.objective.columns:
        capture_for(recipe, run_dir, Asked(), quiet)
    return World(run_dir.path, str(directory / f"{objective}.toml"))


def records_of(world: World, name: str) -> list[CommitRecord]:
    directory = world.run_dir.islands / name
    member = membership.load(directory)
    assert member is not None
    return UpdateLog(directory / "log", member.run.layout, member.run.record_key).records


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_islands_die_and_come_late_and_no_row_is_lost_or_repeated(tmp_path, objective) -> None:
    with swarm_of(tmp_path, objective) as world:
        world.host()
        own = ["island.device=cpu", "island.threads=1"]
        for name in ("a", "b"):
            world.join(name, *own)
        world.until_step(3)
        killed = world.children["a"]
        killed.process.kill()
        killed.socket.close()
        killed.stop(2.0)
        world.join("late", *own)
        world.until(lambda: len(world.participants()) == 3, "the late island takes part", 120.0)
        after = len(world.events("committed"))
        world.join("a", *own)
        world.until_taking_part("a", after)
        world.until_step(NUM_OUTER_STEPS, seconds=600.0)
        names = ("a", "b", "late")
        for name in names:
            world.children[name].process.wait(60)
            assert "the run is finished" in world.log(name).read_text()
        assert not world.events("unequal")
        records = {name: records_of(world, name) for name in names}
        last = records["a"][-1]
        assert last.step == NUM_OUTER_STEPS - 1
        assert all(each == records["a"] for each in records.values())
        assert {newest([world.run_dir.islands / name / "outer"])[0].root for name in names} == {
            last.next_root
        }
        spent = [span for record in records["a"] for _, lease in record.leases for span in lease]
        assert num_samples(merge(spent)) == num_samples(spent), "a sample was committed twice"
        # What is free again is planned first, so only leases of the end can be missing.
        gaps = max(first + count for first, count in spent) - num_samples(spent)
        assert gaps <= 4 * 4 * len(names)
        losses = [event.loss for event in world.events("committed")]
        assert losses[-1] < losses[0] - 0.1
        margins = [e.metrics.margin for e in world.events("committed")[-1].participants.values()]
        assert all(margin is None for margin in margins) if objective == "sft" else min(margins) > 0
