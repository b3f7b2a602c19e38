"""Schedules of faults over the program itself: no invariant is violated, and steps commit."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll import cli, simulate
from atoll.simulate import Fault, Moment, Result, Setting, run, storm, swarm
from atoll.simulate import faults as f
from atoll.simulate import faults_of_disks as d
from atoll.simulate import faults_of_edges as n
from atoll.simulate.storm import MESSAGES

NUM_SEEDS = 80
NUM_EXAMPLES = 30
BOUND_SECONDS = 110.0  # a restored backup waits 60 s for its islands

times = st.floats(0.0, 10.0).map(lambda x: round(x, 2))
durations = st.floats(0.5, 25.0).map(lambda x: round(x, 1))
places = st.integers(0, 5)
flags = st.booleans()
moments = st.one_of(
    st.just(Moment()),
    st.builds(Moment, st.sampled_from(["steps", "syncs"]), st.integers(0, 30)),
    st.builds(Moment, st.just("lines"), st.integers(0, 3000)),
    st.builds(Moment, st.sampled_from(MESSAGES), st.integers(0, 3)),
)


def builds(kind: Callable[..., Fault], *parts: st.SearchStrategy) -> st.SearchStrategy[Fault]:
    return st.builds(kind, times, *parts)


faults = st.one_of(
    builds(f.Crash, places, st.sampled_from(["agent", "trainer", "both", "power"]), moments, durations),
    builds(f.CoordinatorCrash, moments, durations, flags),
    builds(f.Takeover, flags),
    builds(f.GoBack, st.integers(1, 3)),
    builds(f.Freeze, places, durations),
    builds(f.Stall, places, durations),
    builds(f.Slow, places, st.sampled_from([2.0, 8.0]), durations),
    builds(f.ClockRate, places, st.sampled_from([0.9, 1.1])),
    builds(f.Leave, places),
    builds(n.Cut, places, places, durations, flags),
    builds(n.Partition, st.integers(1, 63), durations),
    builds(n.Congestion, places, places, st.sampled_from([3.0, 10.0, 40.0]), durations),
    builds(n.Reset, places, places, flags),
    builds(d.FalseBytes, places, durations),
    builds(d.Rot, places, flags),
    builds(d.FullDisk, places, durations),
    builds(d.FullDatabase, durations),
    builds(d.SlowDisk, places, durations),
)
swarms = st.builds(
    Setting,
    islands=st.integers(1, 3),
    relays=st.integers(0, 1),
    dial_only=st.integers(0, 1),
    late=st.integers(0, 1),
    outer_steps=st.integers(2, 4),
    step_seconds=st.just(0.2),
)


@settings(max_examples=NUM_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000), swarms, st.lists(faults, max_size=4))
def test_no_schedule_breaks_an_invariant(seed: int, setting: Setting, schedule: list[Fault]) -> None:
    assert run(seed, schedule, setting).wrong == []


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [run(seed, storm(seed), swarm(seed)) for seed in range(NUM_SEEDS)]


def test_no_storm_breaks_an_invariant_or_stalls(results: list[Result]) -> None:
    assert {result.seed: result.wrong for result in results if result.wrong} == {}
    kinds = {kind.__name__ for kind in Fault.__subclasses__() if kind.__module__.startswith("atoll.")}
    drawn = {kind for result in results for kind in result.faults}
    assert drawn == kinds - {"Liar"}  # which test_simulate_liars.py plays alone


def test_steps_commit_in_time_while_it_is_calm(results: list[Result]) -> None:
    assert max(result.worst_gap_seconds for result in results) <= BOUND_SECONDS


@pytest.mark.parametrize("islands", [1, 2, 5])
def test_without_faults_every_step_is_committed_with_all_islands(islands: int) -> None:
    # Steps so long that what a thread happens to take, up to a second, makes nobody late.
    result = run(7, (), Setting(islands=islands, outer_steps=6, step_seconds=1.0))
    assert result.commits == 6 and not result.wrong and result.faults.total() == 0
    assert result.participations == 6 * islands and result.reports["frozen"] == 0


def test_a_flapping_island_is_not_waited_for() -> None:
    flaps = [f.Crash(1.0 + 5 * k, 1, "both", down_seconds=0.5) for k in range(6)]
    result = run(3, flaps, Setting(islands=4, outer_steps=10))
    assert result.commits == 10 and not result.wrong and result.worst_gap_seconds < 15


def test_an_island_that_was_too_slow_gets_fewer_inner_steps_and_takes_part() -> None:
    """The step was committed before it could propose; its beats say how far it was."""
    setting = Setting(islands=4, relays=1, outer_steps=8, inner_steps=12)
    result = run(1, [f.Slow(0.01, 1, 4.0, 1000.0)], setting)
    assert result.commits == 8 and result.participations >= 4 * 8 - 3


def test_a_seed_replays_exactly_in_another_process() -> None:
    seeds = range(40, 46)
    runs = f"(run(s, storm(s), swarm(s)).fingerprint for s in range({seeds.start}, {seeds.stop}))"
    ours = " ".join(run(s, storm(s), swarm(s)).fingerprint for s in seeds)
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", f"from atoll.simulate import *; print(*{runs})"]
        theirs = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert theirs.stdout.strip() == ours


def test_the_verb_tells_the_same_story_for_the_same_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--seed", "3"]) == 0
    story = capsys.readouterr().out
    assert cli.main(["simulate", "--seed", "3"]) == 0
    assert capsys.readouterr().out == story and "committed: step 0" in story


def test_the_verb_fails_if_an_invariant_is_violated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "run", lambda seed, *_, **__: Result(seed=seed, violations=["broken"]))
    assert cli.main(["simulate", "--seed", "3", "--schedules", "2"]) == 1
    assert "seed 4: broken (its story: atoll simulate --seed 4)" in capsys.readouterr().out


def test_a_schedule_that_goes_wrong_shrinks_to_the_fault_that_does_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule: list[Fault] = [f.Stall(1.0, 0), f.Leave(2.0, 1), n.Partition(3.0, 5), f.Takeover(4.0)]

    def play(seed: int, faults: list[Fault], *_: object, **__: object) -> Result:
        wrong = ["broken"] if any(isinstance(fault, n.Partition) for fault in faults) else []
        return Result(seed=seed, violations=wrong, story=["a story"])

    monkeypatch.setattr(simulate, "run", play)
    monkeypatch.setattr(simulate, "storm", lambda seed: schedule)
    assert simulate.shortest(1, schedule, Setting()) == [n.Partition(3.0, 5)]
    assert cli.main(["simulate", "--seed", "3"]) == 1
    assert "as wrong with these faults alone:\nPartition(" in capsys.readouterr().out
