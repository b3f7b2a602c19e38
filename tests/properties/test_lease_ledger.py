"""Whatever happens, every sample is in exactly one place: spent, leased, free, or fresh."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.coordinator.leases import Leases
from atoll.samples import Ranges, merge, number_of

PARTITION = 70_000

STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "spend", "return", "restart"]), st.integers(1, 20)), max_size=40
)


def samples(ranges: Ranges) -> list[int]:
    return [sample for first, count in ranges for sample in range(first, first + count)]


def num_free(leases: Leases) -> int:
    return sum(count for _, count in leases._free)


@given(STEPS)
def test_every_sample_is_in_exactly_one_place(steps) -> None:
    leases, leased, spent = Leases(), [], []
    for what, number in steps:
        if what == "take":
            lease = merge([*leases.take(number), *leases.take(number, PARTITION)])
            assert len(samples(lease)) == 2 * number
            leased.append(lease)
        elif what == "restart":
            before = leases.first_fresh() + leases.num_turns(PARTITION) - num_free(leases)
            leases = Leases()
            leases.restore(leased, spent)
            after = leases.first_fresh() + leases.num_turns(PARTITION) - num_free(leases)
            assert after == before, "what is leased or spent stays so"
        elif leased:
            lease = leased.pop(number % len(leased))
            if what == "spend":
                spent.append(lease)
            else:
                leases.give_back(lease)
        used = [sample for lease in (*leased, *spent) for sample in samples(lease)]
        assert len(used) == len(set(used)), "a sample is in two places"
        assert len(used) + num_free(leases) == leases.first_fresh() + leases.num_turns(PARTITION)
        assert all(sample < leases.first_fresh() or number_of(sample) == PARTITION for sample in used)


@given(STEPS, st.integers(1, 30))
def test_what_is_taken_last_fills_every_gap(steps, count) -> None:
    """Returned samples come first, so no sample is left out for ever in a run that goes on."""
    leases, leased = Leases(), []
    for what, number in steps:
        if what in ("take", "spend"):
            leased.append(leases.take(number))
        elif leased:
            leases.give_back(leased.pop(number % len(leased)))
    free, fresh = num_free(leases), leases.first_fresh()
    lease = samples(leases.take(free + count))
    assert sum(sample < fresh for sample in lease) == free
    assert lease == sorted(lease)
