"""Every mutation has its one place in production, and leaves it Python (bench/mutations.py runs them)."""

import ast

import pytest
from mutations import Mutation, mutations

MUTATIONS = mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_has_its_one_place_and_still_is_python(mutation: Mutation) -> None:
    ast.parse(mutation.source())


def test_mutations_are_many_and_of_all_three_parts() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 40
    assert {mutation.file.split("/")[0] for mutation in MUTATIONS} >= {"agent", "coordinator", "swarm"}
