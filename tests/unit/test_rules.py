"""Who may be a member: the coordinator's objections to a Hello."""

import msgspec
import pytest
from unit.test_standing import RULES

import examples
from atoll.coordinator.admission import objection_to_hello
from atoll.swarm import messages as m

HELLO = examples.hello(
    recipe_digest=RULES.recipe_digest,
    self_test=RULES.self_test,
    contributor="Ada",
    head_root=RULES.genesis_root,
)


def test_an_agent_of_the_run_may_be_a_member() -> None:
    assert not objection_to_hello(RULES, HELLO)


@pytest.mark.parametrize(
    ("changes", "objection"),
    [
        ({"version": m.VERSION - 1}, "install the host's version of atoll"),
        ({"version": m.VERSION + 1}, "install the host's version of atoll"),
        ({"recipe_digest": "another"}, "its recipe is not the run's"),
        ({"self_test": b"other bits"}, "its arithmetic gives other bits"),
        # Another version explains the rest.
        ({"version": 0, "recipe_digest": "another"}, "it speaks version 0 of the protocol"),
    ],
)
def test_an_agent_that_would_not_understand_the_others_is_refused(changes, objection) -> None:
    assert objection in objection_to_hello(RULES, msgspec.structs.replace(HELLO, **changes))
