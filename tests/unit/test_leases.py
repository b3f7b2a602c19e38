"""Leases: no sample is leased twice, returned samples come first, and a restart loses none."""

import pytest

from atoll.coordinator.leases import Leases
from atoll.samples import merge, split


def num_free(leases: Leases) -> int:
    return sum(count for _, count in leases._free)


def test_fresh_samples_come_in_order() -> None:
    leases = Leases()
    assert leases.take(5) == ((0, 5),)
    assert leases.take(3) == ((5, 3),)
    assert leases.first_fresh() == 8


def test_returned_samples_are_leased_first() -> None:
    leases = Leases()
    first = leases.take(5)
    leases.take(5)
    leases.give_back(first)
    assert num_free(leases) == 5
    assert leases.take(3) == ((0, 3),)
    assert leases.take(4) == ((3, 2), (10, 2))
    assert num_free(leases) == 0


def test_a_lease_of_nothing_is_empty() -> None:
    assert Leases().take(0) == ()


def test_after_a_restart_a_sample_that_is_neither_leased_nor_spent_is_free() -> None:
    leases = Leases()
    leases.restore(leased=[((10, 5),)], spent=[((0, 5),), ((20, 5),)])
    assert leases.first_fresh() == 25
    assert leases.take(12) == ((5, 5), (15, 5), (25, 2))


def test_a_first_start_restores_nothing() -> None:
    leases = Leases()
    leases.restore([], [])
    assert leases.take(2) == ((0, 2),)


def test_records_in_which_a_sample_is_spent_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="sample 4 is in two leases"):
        Leases().restore([((4, 2),)], [((0, 5),)])


def test_a_sample_cannot_be_given_back_twice() -> None:
    leases = Leases()
    lease = leases.take(5)
    leases.give_back(lease)
    with pytest.raises(ValueError, match="in two leases"):
        leases.give_back(lease)


def test_neighbours_are_joined() -> None:
    assert merge([(5, 5), (0, 5), (11, 1)]) == ((0, 10), (11, 1))


def test_ranges_are_split_after_a_number_of_samples() -> None:
    assert split(((0, 4), (10, 4)), 6) == (((0, 4), (10, 2)), ((12, 2),))
    assert split(((0, 4),), 0) == ((), ((0, 4),))
    assert split(((0, 4),), 4) == (((0, 4),), ())
