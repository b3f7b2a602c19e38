import math

import pytest

from atoll.island.schedule import factor, rewarmed
from atoll.recipe import Schedule


def test_wsd_warms_up_stays_and_decays_by_one_minus_the_root():
    wsd = Schedule(type="wsd", warmup_steps=9, decay_steps=20, final=0.1)
    assert [factor(wsd, step, 100) for step in (0, 4, 8)] == pytest.approx([0.1, 0.5, 0.9])
    assert {factor(wsd, step, 100) for step in range(9, 81)} == {1.0}
    assert factor(wsd, 85, 100) == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(5 / 20)))
    assert factor(wsd, 100, 100) == factor(wsd, 1000, 100) == pytest.approx(0.1)


def test_cosine_and_linear_fall_from_the_warmups_end_to_final():
    for kind, middle in (("cosine", 0.5), ("linear", 0.5)):
        schedule = Schedule(type=kind, warmup_steps=10, final=0.0)
        assert factor(schedule, 10, 110) == 1.0
        assert factor(schedule, 60, 110) == pytest.approx(middle)
        assert factor(schedule, 110, 110) == pytest.approx(0.0, abs=1e-12)
    assert factor(Schedule(type="cosine"), 25, 100) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_constant_only_warms_up():
    constant = Schedule(type="constant", warmup_steps=1, final=0.0)
    assert [factor(constant, step, 4) for step in range(6)] == [0.5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
def test_a_warmup_as_long_as_the_run_and_a_decay_longer_than_it_are_harmless(kind):
    assert factor(Schedule(type=kind, warmup_steps=10), 10, 10) == 0.0
    long = Schedule(type=kind, warmup_steps=2, decay_steps=50)
    factors = [factor(long, step, 10) for step in range(12)]
    assert factors[2] == 1.0
    assert factors[2:] == sorted(factors[2:], reverse=True)


def test_an_optimizer_with_fresh_moments_warms_up_from_its_first_step():
    assert [rewarmed(step, 40, 3) for step in range(40, 45)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [rewarmed(step, 0, 0) for step in (0, 1, 1000)] == [1.0, 1.0, 1.0]
