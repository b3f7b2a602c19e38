"""The order of samples: examples a person can check. Its laws are in tests/properties/test_data_order.py."""

import time
from itertools import pairwise

import numpy as np
import pytest

from atoll.data.mixture import PERIOD, Mixture
from atoll.errors import UserError


def sources_of(mixture: Mixture, indices: range, stage_starts: list[int]) -> list[str]:
    return [mixture.sample(index, stage_starts).source for index in indices]


def test_four_to_one_takes_every_fifth_sample():
    mixture = Mixture([{"books": 80, "python": 20}], {"books": 10, "python": 10}, seed=0)
    order = "".join(name[0] for name in sources_of(mixture, range(20), [0]))
    assert order == "bbpbbbbpbbbbpbbbbpbb"


def test_a_later_stage_continues_each_source_where_the_earlier_one_left_it():
    mixture = Mixture([{"a": 1, "b": 1}, {"b": 1}], {"a": 100, "b": 100}, seed=3)
    drawn = [mixture.sample(index, [0, 50]) for index in range(125)]
    windows = [sample.window for sample in drawn if sample.source == "b"]
    assert len(windows) == 100
    assert sorted(windows) == list(range(100))


@pytest.mark.parametrize("anneal_start", range(2000, 2020))
def test_the_reference_mixture_is_always_within_two_windows_of_its_weights(anneal_start):
    stages = [{"a": 55, "b": 10, "c": 20, "d": 10, "e": 5}, {"a": 80, "b": 10, "c": 10}]
    mixture = Mixture(stages, dict.fromkeys("abcde", 100), seed=0)
    for name in "abcde":
        due = np.repeat([stage.get(name, 0) / 100 for stage in stages], [anneal_start, PERIOD])
        turns = [source == name for source in sources_of(mixture, range(len(due)), [0, anneal_start])]
        off = np.cumsum([0, *(turns - due)])
        assert np.abs(off[PERIOD:] - off[:-PERIOD]).max() < 1.7


def test_a_source_that_runs_out_is_read_again_in_another_order():
    mixture = Mixture([{"a": 1}], {"a": 130}, seed=0)
    passes = [[mixture.sample(index, [0]) for index in range(p * 130, (p + 1) * 130)] for p in range(3)]
    assert [{sample.pass_number for sample in one} for one in passes] == [{0}, {1}, {2}]
    orders = [[sample.window for sample in one] for one in passes]
    assert all(sorted(order) == list(range(130)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_order_is_pinned():
    """Runs last for months and islands update: a change of these numbers is a change of format."""
    mixture = Mixture([{"a": 2, "b": 1}], {"a": 1000, "b": 77}, seed=1)
    assert [tuple(mixture.sample(index, [0])) for index in (0, 1, 2, 999, 10**12)] == [
        ("a", 521, 0),
        ("b", 65, 0),
        ("a", 568, 0),
        ("a", 370, 0),
        ("a", 238, 667_000_000),
    ]


def test_successive_samples_lie_in_one_block():
    mixture = Mixture([{"a": 1}], {"a": 64 * 1000}, seed=0)
    blocks = [mixture.sample(index, [0]).window // 64 for index in range(64 * 1000)]
    changes = sum(left != right for left, right in pairwise(blocks))
    assert changes == 999


def test_far_samples_cost_microseconds():
    mixture = Mixture(
        [{"a": 55, "b": 10, "c": 20, "d": 10, "e": 5}], dict.fromkeys("abcde", 10**9 + 7), seed=0
    )
    mixture.sample(0, [0])
    start = time.perf_counter()
    for index in range(1000):
        mixture.sample(10**12 + index, [0])
    assert (time.perf_counter() - start) / 1000 < 200e-6


@pytest.mark.parametrize(
    ("weights", "num_windows", "message"),
    [
        ({"a": 0.0}, {"a": 1}, "not all 0"),
        ({"a": -1, "b": 2}, {"a": 1, "b": 1}, "at least 0"),
        ({"a": float("inf")}, {"a": 1}, "at least 0"),
        ({"a": 1, "b": 5000}, {"a": 1, "b": 1}, "a weighs less than one sample in 1000"),
        ({"a": 1}, {"a": 0}, "sources.a: the mixture asks for it, but it has no window"),
    ],
)
def test_mixtures_that_cannot_be_realised_are_refused(weights, num_windows, message):
    with pytest.raises(UserError, match=message):
        Mixture([weights], num_windows, seed=0)


def test_weights_that_do_not_divide_are_rounded_by_largest_remainder():
    mixture = Mixture([{"a": 1, "b": 1, "c": 1}], {"a": 1, "b": 1, "c": 1}, seed=0)
    assert mixture.counts == [{"a": 334, "b": 333, "c": 333}]
    assert sum(mixture.counts[0].values()) == PERIOD


def test_an_index_before_the_first_stage_and_impossible_starts_are_programming_errors():
    mixture = Mixture([{"a": 1}], {"a": 1}, seed=0)
    for index, starts in ((-1, [0]), (5, [6]), (5, [0, 3]), (5, [3, 0])):
        with pytest.raises(ValueError, match="stage"):
            mixture.sample(index, starts)
