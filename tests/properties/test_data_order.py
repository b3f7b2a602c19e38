"""What holds for the order of samples of any mixture."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.mixture import PERIOD, Mixture
from atoll.data.permutation import permuted

NAMES = "abcdefgh"
weight_dicts = st.dictionaries(st.sampled_from(NAMES), st.floats(0.1, 10), min_size=1)
windows = st.fixed_dictionaries({name: st.integers(1, 500) for name in NAMES})


@settings(max_examples=25)
@given(weight_dicts, windows, st.integers(0, 2**63), st.integers(0, 10**12))
def test_weights_hold_exactly_in_any_thousand_samples_of_a_stage(weights, num_windows, seed, start):
    mixture = Mixture([weights], num_windows, seed)
    drawn = Counter(mixture.sample(index, [0]).source for index in range(start, start + PERIOD))
    assert drawn == mixture.counts[0]
    total = sum(weights.values())
    assert all(abs(drawn[name] - weight * PERIOD / total) < 1 for name, weight in weights.items())


@settings(max_examples=25)
@given(st.lists(weight_dicts, min_size=2, max_size=4), st.lists(st.integers(0, 1500), min_size=3, max_size=3))
def test_no_source_is_two_windows_off_in_any_thousand_samples_across_stages(stages, lengths):
    mixture = Mixture(stages, dict.fromkeys(NAMES, 100), 0)
    starts = [0, *np.cumsum(lengths).tolist()][: len(stages)]
    off = [np.zeros(len(NAMES), int)]  # turns taken less turns due before each sample, in thousandths
    for index in range(starts[-1] + PERIOD):
        counts = mixture.counts[sum(start <= index for start in starts) - 1]
        turn = mixture.sample(index, starts).source
        off.append(off[-1] + [PERIOD * (name == turn) - counts.get(name, 0) for name in NAMES])
    periods = zip(off, off[PERIOD:], strict=False)
    assert max(np.abs(after - before).max() for before, after in periods) <= 2 * PERIOD


@settings(max_examples=25)
@given(
    st.lists(weight_dicts, min_size=2, max_size=3),
    st.lists(st.integers(0, 1500), min_size=2, max_size=2),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 3000)), max_size=4),
)
def test_samples_are_counted_as_they_are_drawn(stages, lengths, ranges):
    mixture = Mixture(stages, dict.fromkeys(NAMES, 100), 0)
    starts = [0, *np.cumsum(lengths).tolist()][: len(stages)]
    indices = [index for first, count in ranges for index in range(first, first + count)]
    assert mixture.count(ranges, starts) == Counter(mixture.turn(index, starts)[0] for index in indices)


@given(st.integers(1, 2000), st.integers(0, 2**64 - 1))
def test_a_pass_visits_every_window_once(num_windows, key):
    windows = sorted(permuted(position, num_windows, key) for position in range(num_windows))
    assert windows == list(range(num_windows))


@settings(max_examples=25)
@given(
    st.lists(weight_dicts, min_size=1, max_size=3),
    st.lists(st.integers(0, 1200), min_size=2, max_size=2),
    windows,
)
def test_stages_never_repeat_or_skip_a_window(stages, lengths, num_windows):
    mixture = Mixture(stages, num_windows, 7)
    starts = [0, *np.cumsum(lengths).tolist()][: len(stages)]
    drawn = [mixture.sample(index, starts) for index in range(starts[-1] + 500)]
    for name in {sample.source for sample in drawn}:
        visits = Counter(sample.window for sample in drawn if sample.source == name)
        passes = [sample.pass_number for sample in drawn if sample.source == name]
        assert passes == sorted(passes)
        assert len(visits) == min(len(passes), num_windows[name])
        assert max(visits.values()) == -(-len(passes) // num_windows[name])
