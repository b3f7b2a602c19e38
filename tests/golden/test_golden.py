"""A change that is not about computation must give the same losses and the same roots, to the last bit."""

import json

import pytest
from golden.first_steps import CASES, FILE, environment, losses_and_roots

NEAR = 2e-3  # of a loss, where another processor or torch rounds otherwise


@pytest.mark.parametrize("case", CASES)
def test_the_first_steps_of_a_run_give_what_they_gave(case: str, tmp_path) -> None:
    golden = json.loads(FILE.read_text())
    made = losses_and_roots(case, tmp_path)
    if golden["environment"] == environment():
        assert made == golden[case]
    else:
        want, have = ([float.fromhex(loss) for loss in each["losses"]] for each in (golden[case], made))
        assert have == pytest.approx(want, rel=NEAR)
        assert len(made["roots"]) == len(golden[case]["roots"])
