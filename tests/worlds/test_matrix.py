"""The fault matrix: each phase of an outer step or recovery x who is hit x the fault (docs/failures.md)."""

from collections.abc import Iterator
from itertools import groupby, product

import pytest
from worlds.case import FAULTS, PHASES, RECOVERIES, Case

# Left out, because there is no such case or another one covers it: a trainer has no network of its own (the
# socket to its agent breaks only when one of the two is gone), and cutting off the whole swarm is cutting off
# the coordinator and the owners. Role "relay" is a relay that owns; "holder" is one beside islands that own,
# so that it only holds and donates.
CASES = [
    *(Case(*case) for case in product(("participant", "owner", "relay", "coordinator"), PHASES, FAULTS)),
    *(Case(*case) for case in product(("trainer", "holder", "swarm"), PHASES, ("kill", "freeze"))),
    *(Case("everything", phase, "kill") for phase in PHASES),
    *(Case(*case) for case in product(("edge",), ("reduce", "assembled"), ("cut", "break"))),
    *(Case(*case) for case in product(("joiner", "donor", "coordinator"), RECOVERIES, FAULTS)),
]
# The same with some of the phase's messages delivered before: one island knows what the others do not.
TOLD_TO_ALL = set(PHASES) - {"inner", "reduce", "adopt"}
HALFWAY = [
    *(Case(*case) for case in product(("coordinator",), TOLD_TO_ALL, ("kill", "cut"), (2,))),
    *(Case(*case) for case in product(("participant", "owner", "relay"), ("reduce",), FAULTS, (4,))),
    *(Case(*case) for case in product(("joiner", "donor"), RECOVERIES, ("kill",), (3,))),
]


def parameters() -> Iterator[object]:
    """All cases. Of each role and phase one fault, in turn, is in the default suite; the others are slow."""
    roles = list(dict.fromkeys(case.role for case in CASES))
    for (role, phase), group in groupby(CASES, key=lambda case: (case.role, case.phase)):
        cases = list(group)
        turn = (roles.index(role) + [*PHASES, *RECOVERIES].index(phase)) % len(cases)
        few = role in ("holder", "swarm", "everything") and phase != "held"
        for i, case in enumerate(cases):
            yield parameter(case, slow=few or i != turn)
    for case in sorted(HALFWAY, key=str):
        yield parameter(case, slow=True)


def parameter(case: Case, slow: bool) -> object:
    return pytest.param(case, id=str(case), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("case", list(parameters()))
def test_the_run_goes_on(case: Case) -> None:
    case.play()
