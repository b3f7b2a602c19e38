"""Schedules of faults over production's state machines: no invariant is violated, and steps commit."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll import cli, simulate
from atoll.simulate import Fault, Result, Setting, run, storm, swarm
from atoll.simulate import faults as f

NUM_SEEDS = 700
NUM_EXAMPLES = 400
# The worst of 100,000 schedules took 53 s to commit; a restored backup waits 60 s more for its islands.
BOUND_SECONDS = 110.0

moments = st.floats(0.0, 15.0).map(lambda x: round(x, 2))
durations = st.floats(0.5, 30.0).map(lambda x: round(x, 1))
places = st.integers(0, 6)
flags = st.booleans()
effects = st.integers(0, 12)


def builds(kind: Callable[..., Fault], *parts: st.SearchStrategy) -> st.SearchStrategy[Fault]:
    return st.builds(kind, moments, *parts)


faults = st.one_of(
    builds(f.Crash, places, effects, durations, flags),
    builds(f.CoordinatorCrash, effects, durations, flags),
    builds(f.Takeover, durations),
    builds(f.Freeze, places, durations),
    builds(f.Cut, places, places, durations, flags),
    builds(f.Partition, st.integers(1, 127), durations),
    builds(f.Congestion, places, places, st.sampled_from([3.0, 10.0, 40.0]), durations),
    builds(f.Reset, places, places, flags),
    builds(f.Stall, places, durations),
    builds(f.Slow, places, st.sampled_from([2.0, 8.0]), durations),
    builds(f.ClockJump, places, st.sampled_from([5.0, 3600.0])),
    builds(f.ClockRate, places, st.sampled_from([0.9, 1.1])),
    builds(f.FalseBytes, places, durations),
    builds(f.Leave, places),
)
swarms = st.builds(
    Setting,
    islands=st.integers(1, 4),
    relays=st.integers(0, 1),
    dial_only=st.integers(0, 1),
    late=st.integers(0, 1),
    outer_steps=st.integers(2, 5),
)


@settings(max_examples=NUM_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000), swarms, st.lists(faults, max_size=5))
def test_no_schedule_breaks_an_invariant(seed: int, setting: Setting, schedule: list[Fault]) -> None:
    assert run(seed, schedule, setting).violations == []


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [run(seed, storm(seed, backups=False), swarm(seed)) for seed in range(NUM_SEEDS)]


def test_no_storm_breaks_an_invariant(results: list[Result]) -> None:
    assert {result.seed: result.violations for result in results if result.violations} == {}
    assert len({kind for result in results for kind in result.faults}) == len(Fault.__subclasses__()) - 1


def test_no_storm_with_restored_backups_breaks_an_invariant() -> None:
    results = [run(seed, storm(seed), swarm(seed)) for seed in range(150)]
    assert {result.seed: result.violations for result in results if result.violations} == {}


def test_steps_commit_in_time_while_it_is_calm(results: list[Result]) -> None:
    assert {result.seed: result.stalls for result in results if result.stalls} == {}
    assert max(result.worst_gap_seconds for result in results) <= BOUND_SECONDS


@pytest.mark.parametrize("islands", [1, 2, 5])
def test_without_faults_every_step_is_committed_with_all_islands(islands: int) -> None:
    result = run(7, (), Setting(islands=islands, outer_steps=6))
    assert result.commits == 6 and not result.violations and result.faults.total() == 0
    assert result.reports["frozen"] == 0
    assert result.reports["left"] == islands, "each left once, at the end"


def test_a_flapping_island_is_not_waited_for() -> None:
    flaps = [f.Crash(1.0 + 5 * k, 1, 0, 0.5) for k in range(8)]
    result = run(3, flaps, Setting(islands=4, outer_steps=10))
    assert result.commits == 10 and not result.violations and result.worst_gap_seconds < 15


def test_an_island_that_was_too_slow_gets_fewer_inner_steps_and_takes_part() -> None:
    """The step was committed before it could propose; its beats say how far it was."""
    setting = Setting(islands=4, relays=1, outer_steps=8, inner_steps=12)
    result = run(1, [f.Slow(0.01, 1, 4.0, 1000.0)], setting)
    assert result.commits == 8 and result.participations >= 4 * 8 - 3


def test_a_seed_replays_exactly_in_another_process() -> None:
    runs = "(run(s, storm(s), swarm(s)).fingerprint for s in range(40, 60))"
    code = f"from atoll.simulate import *; print(*{runs})"
    ours = " ".join(run(s, storm(s), swarm(s)).fingerprint for s in range(40, 60))
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code]
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
