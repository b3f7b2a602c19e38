"""`examples/own_loop.py` with real processes: to its end, and with each kind of process killed once."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from faults.processes import World

from atoll.coordinator.database import sqlite_url
from atoll.coordinator.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPE = """
name = "own"
model.own = true
stage = [{{ until = {until} }}]
inner = {{ context_length = 1, tokens_per_step = 32 }}
outer = {{ inner_steps = 20, checkpoint_every = 5 }}
"""


def new_run(directory: Path, until: int) -> World:
    """A prepared run of the example's module."""
    recipe = directory / "own.toml"
    recipe.write_text(RECIPE.format(until=until))
    run = directory / "run"
    program = (EXAMPLES / "own_loop.py").read_text().replace('"own", weights', f'"{recipe}", weights')
    subprocess.run([sys.executable, "-c", program, "prepare", str(run)], check=True, timeout=60)
    return World(run, str(recipe))


def start(world: World, name: str) -> None:
    path = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    world.start(name, ["own_loop", world.ticket, str(world.run_dir.islands / name)], {"PYTHONPATH": path})


def test_two_islands_run_the_example_to_its_end(tmp_path) -> None:
    with new_run(tmp_path, until=60) as world:
        world.host()
        start(world, "a")
        start(world, "b")
        for name in ("a", "b"):
            assert world.children[name].process.wait(60) == 0, world.log(name).read_text()
        commits = world.events("committed")
        assert len(commits) == 3
        assert not world.events("unequal")
        ready = {(e.step, e.root) for e in world.events("ready") if e.trainer}
        assert ready <= {(c.step + 1, c.root) for c in commits} | {r for r in ready if r[0] == 0}
        assert len({root for step, root in ready if step == 0}) == 1


def test_the_run_survives_the_death_of_each_kind_of_process(tmp_path) -> None:
    with new_run(tmp_path, until=200_000) as world:
        world.host()
        for name in ("a", "b"):
            start(world, name)
        world.until(lambda: len(world.participants()) == 2, "both take part")

        def has_left(name: str) -> bool:
            return any(event.island == world.island_id(name) for event in world.events("left"))

        world.children["a"].kill()  # a trainer; its agent ends with it
        world.until(lambda: has_left("a"), "the death of a is noticed")
        world.until_step(len(world.events("committed")) + 2)
        start(world, "a")
        world.until_taking_part("a", after=len(world.events("committed")))

        world.kill_agent("b")  # its trainer starts another
        world.until(lambda: has_left("b"), "the death of b is noticed")
        world.until_taking_part("b", after=len(world.events("committed")))

        os.kill(int((world.run_dir.islands / "relay" / "agent.pid").read_text()), 9)
        relay = world.island_id("relay")

        def num_joined() -> int:
            return [event.island for event in world.events("joined")].count(relay)

        world.until(lambda: num_joined() > 1, "the relay is started again")

        before = len(world.events("committed"))
        world.children["host"].kill()
        world.host()
        world.until_step(before + 3)
        world.until_taking_part("a", after=before)
        world.until_taking_part("b", after=before)
        assert not world.events("unequal")
        reported = [event.step for event in world.events("committed")]
    assert reported == sorted(set(reported)), "every step is reported once, in order, across the restart"
    # A commit is durable before its event is written: the coordinator may have been killed in between.
    assert len(set(range(reported[-1])).difference(reported)) <= 1
    with contextlib.closing(Store(sqlite_url(world.run_dir.coordinator))) as store:
        steps = [record.step for record in store.commits()]
    assert steps == list(range(len(steps))), "every step was committed once, in order, across the restart"
    assert steps[-1] >= reported[-1]
