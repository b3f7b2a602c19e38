"""An island joins a real host in the background, is seen by name and link, survives a kill, and leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from faults.processes import World
from unit.small_runs import make_recipe

from atoll.run.genesis import prepare
from atoll.run.host import wait_for_ticket
from atoll.run.processes import Child

ADA = ["--contributor", "Ada", "--place", "Kyoto, JP", "--link", "https://example.org/ada"]


@pytest.fixture
def world(tmp_path):
    recipe = make_recipe(tmp_path / "sources", stage=[{"until": 100_000, "mixture": {"letters": 1}}])
    with World(tmp_path / "run", str(tmp_path / "run")) as world:
        prepare(recipe, world.run_dir, lambda _: None)
        world.children["host"] = host = start_host(world)
        assert host.alive
        yield world


def start_host(world: World) -> Child:
    arguments = ["atoll", "host", str(world.run_dir.path), "--listen", "127.0.0.1:0", "--no-relay"]
    child = Child(arguments, log=world.log("host"))
    world.ticket = wait_for_ticket(world.run_dir.coordinator / "ticket", child, "")
    return child


def atoll(tmp_path: Path, *words: str, rc: int = 0) -> str:
    """What a command says, where no systemd answers."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    (programs / "systemctl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "atoll", *words], capture_output=True, text=True, timeout=400, env=environment
    )
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout


def test_an_island_in_the_background_comes_back_after_a_kill_and_leaves_when_told(world, tmp_path) -> None:
    ticket = tmp_path / "ticket"
    ticket.write_text(world.ticket)
    run_dir = str(world.run_dir.path)
    where = ["--dir", run_dir, "--name", "a", "--listen", "127.0.0.1:0"]
    told = atoll(tmp_path, "join", str(ticket), "island.threads=1", *where, *ADA, "--background")
    try:
        assert "this machine gives: the CPU with 1 cores" in told
        assert "the run takes: " in told
        assert "without systemd a reboot ends it" in told
        world.until_step(2, 240.0)
        status = world.status()
        assert status is not None
        (island,) = status.islands
        assert [island.contributor, island.place, island.link] == ADA[1::2]
        trainers = trainers_of(world.run_dir.path)
        assert len(trainers) == 1
        os.kill(trainers[0], signal.SIGKILL)
        num_steps = len(world.events("committed"))
        world.until(
            lambda: trainers_of(world.run_dir.path) not in ([], trainers), "it is started again", 240.0
        )
        world.until_step(num_steps + 2, 240.0)
    finally:
        said = atoll(tmp_path, "leave", run_dir)
    assert said.startswith("a has left; committed of this island in all: ")
    assert "100.0% of the run's" in said
    world.until(lambda: world.events()[-1].kind == "left", "the coordinator has seen it go", 120.0)
    assert not trainers_of(world.run_dir.path)
    assert not (world.run_dir.islands / "a" / "background.json").exists()


def trainers_of(directory: Path) -> list[int]:
    """The processes that train in a run's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(directory) in words and words[1:4] == [b"-m", b"atoll", b"join"]:
            found.append(int(path.parent.name))
    return found


def test_the_doctor_asks_a_real_host_and_uses_no_ticket_up(world, tmp_path) -> None:
    told = atoll(tmp_path, "doctor", "--ticket", world.ticket, "--relay", "--mbit", "50/500", "--json")
    found = {each["about"]: each for each in msgspec.json.decode(told)}
    assert found["run"]["grade"] == "right"
    assert "0 islands are in it" in found["run"]["found"]
    assert found["reachable"]["found"].endswith("the host has reached it at 127.0.0.1")
    assert found["clock"]["grade"] == "right"
    assert found["versions"]["found"].endswith("as the run's host")
    assert not world.events("enrolled")
