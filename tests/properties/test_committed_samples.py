"""Whatever happens to a swarm, no sample is skipped and none is committed twice.

Gaps are samples that the coordinator holds as free, and leases first. A window comes again only in the next
pass of its source.
"""

from collections import Counter, defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.coordinator.leases import Leases
from atoll.data.mixture import Mixture
from atoll.samples import Ranges, merge
from atoll.simulate import Setting, World, storm

STAGES = [{"web": 7, "code": 3}, {"web": 1, "code": 1, "books": 1}, {"books": 1}]
NUM_WINDOWS = {"web": 40, "code": 11, "books": 5}  # so few that every source is passed more than once

settings_of_swarms = st.builds(
    Setting,
    islands=st.integers(1, 4),
    relays=st.integers(0, 1),
    late=st.integers(0, 1),
    outer_steps=st.integers(3, 6),
    stages=st.integers(1, 3),
    step_seconds=st.just(0.1),
)


def indices(ranges: Ranges) -> list[int]:
    return [index for first, count in ranges for index in range(first, first + count)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), settings_of_swarms)
def test_committed_samples_have_no_gap_and_no_repeat(seed: int, setting: Setting) -> None:
    world = World(seed, setting, storm(seed))
    assert world.play().wrong == []
    commits = world.invariants.history
    spent = [lease for record in commits for _, lease in record.leases]
    # `merge` raises ValueError if a sample was committed twice.
    committed = indices(merge([part for lease in spent for part in lease]))

    # The next coordinator leases the samples of the gap first; then there is none.
    gap = sorted(set(range(max(committed, default=-1) + 1)) - set(committed))
    leases = Leases()
    leases.restore([], spent)
    assert indices(leases.take(len(gap))) == gap

    # Each sample was the same window when it was trained on as it is for a reader of the records.
    mixture = Mixture(STAGES[: setting.stages], NUM_WINDOWS, seed)
    starts = commits[-1].stage_starts if commits else ()
    assert list(starts) == sorted(starts)
    for record in commits:
        assert starts[: len(record.stage_starts)] == record.stage_starts
        for _, lease in record.leases:
            drawn = [mixture.sample(index, record.stage_starts) for index in indices(lease)]
            assert drawn == [mixture.sample(index, starts) for index in indices(lease)]
            assert mixture.count(lease, record.stage_starts) == Counter(sample.source for sample in drawn)

    # So every turn of each source but those of the gap was taken once, and a window once a pass.
    turns: defaultdict[str, list[int]] = defaultdict(list)
    for index in [*committed, *gap]:
        source, turn = mixture.turn(index, starts)
        turns[source].append(turn)
    assert all(sorted(taken) == list(range(len(taken))) for taken in turns.values())
    windows = Counter(mixture.sample(index, starts) for index in committed)
    assert max(windows.values(), default=1) == 1
