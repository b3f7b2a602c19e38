"""Members that lie: steps commit, the bits are right, and no honest island is excluded for it."""

import pytest

from atoll.simulate import Setting, run
from atoll.simulate.faults_of_members import LIES, Liar

# Steps so long that what a thread happens to take makes no honest island late.
SWARM = Setting(islands=4, relays=1, outer_steps=8, step_seconds=1.0)
CHARGED = {"slice", "norms", "accuses"}  # which cost its maker ownership first


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_only_a_liar_is_left_out(seed: int, lie: str) -> None:
    result = run(seed, [Liar(1.0, 2, lie)], SWARM, tell=True)
    assert result.wrong == [] and result.commits == SWARM.outer_steps
    assert set(result.excluded) <= {"i001"}, "\n".join(result.story)
    assert result.excluded or lie in CHARGED, "\n".join(result.story)


@pytest.mark.parametrize("seed", [3, 4])
def test_two_liars_of_different_kinds_are_no_worse(seed: int) -> None:
    setting = Setting(islands=5, relays=1, outer_steps=8, step_seconds=1.0)
    result = run(seed, [Liar(1.0, 1, "root"), Liar(1.0, 2, "accuses")], setting)
    assert result.wrong == [] and result.commits == setting.outer_steps
    assert set(result.excluded) <= {"i000", "i001"}
