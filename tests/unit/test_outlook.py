"""`atoll simulate --plan`: what a swarm would do, from its links and a machine's constants."""

import msgspec
import pytest

from atoll.cli import main
from atoll.cli.simulate import parse_links
from atoll.errors import UserError
from atoll.simulate.plan import Case, Machine, encoded_bytes, outlook, reduction

MACHINE = Machine(
    encode_seconds=1e-9, add_seconds=1e-9, apply_seconds=2e-9, copy_seconds=1e-9, disk_bytes_per_second=1e9
)
CASE = Case(
    num_parameters=10**9,
    links=((100.0, 100.0),) * 4,
    round_trip_seconds=0.1,
    inner_steps=100,
    inner_step_seconds=10.0,
)


def test_an_outer_step_is_the_sum_of_its_parts_and_utilisation_what_trains_of_it() -> None:
    found = outlook(CASE, MACHINE)
    ideal = 1.5 * 8 * encoded_bytes(CASE) / 100e6
    assert found.train_seconds == 1000.0
    assert ideal < found.reduce_seconds < 1.1 * ideal
    assert found.encode_seconds == pytest.approx(1.0)
    assert found.utilisation < found.reduce_utilisation < 1.0
    assert found.utilisation == pytest.approx(1000.0 / found.outer_step_seconds)


def test_an_island_sends_in_a_day_what_its_steps_need() -> None:
    found = outlook(CASE, MACHINE)
    steps = 86_400 / found.outer_step_seconds
    assert found.gb_sent_a_day == pytest.approx([1.5 * encoded_bytes(CASE) * steps / 1e9] * 4)


def test_the_link_to_improve_first_is_the_one_that_all_wait_for() -> None:
    links = ((100.0, 100.0), (20.0, 500.0), (100.0, 100.0), (100.0, 100.0))
    found = outlook(msgspec.structs.replace(CASE, links=links), MACHINE)
    assert found.slowest == 1
    assert found.gained_seconds == pytest.approx(found.reduce_seconds / 2, rel=0.1)


def test_a_relay_that_lowers_the_time_of_home_links_is_used() -> None:
    home = msgspec.structs.replace(CASE, links=((50.0, 200.0),) * 4)
    with_relay = msgspec.structs.replace(home, relays=((400.0, 400.0),))
    assert reduction(with_relay)[0] < 0.7 * reduction(home)[0]
    assert outlook(with_relay, MACHINE).relays_own == pytest.approx(1.0)


def test_an_owner_that_computes_more_slowly_than_its_link_carries_decides() -> None:
    fast = msgspec.structs.replace(CASE, links=((1e5, 1e5),) * 4)
    slow = msgspec.structs.replace(MACHINE, add_seconds=1e-7)
    assert outlook(fast, slow).reduce_seconds == pytest.approx(0.25 * (4 * 100 + 1))


def test_links_are_read_and_what_is_none_is_refused_with_its_option() -> None:
    assert parse_links("--mbit", "50/500,100") == ((50.0, 500.0), (100.0, 100.0))
    for text in ("", "0/5", "50/x", "-1", "nan", "1,,2"):
        with pytest.raises(UserError, match="--mbit"):
            parse_links("--mbit", text)


def test_the_verb_tells_parts_utilisation_and_the_link_to_improve(capsys) -> None:
    assert main(["simulate", "--plan", "demo", "--islands", "3", "--mbit", "5/50,100/100"]) == 0
    said = capsys.readouterr().out
    for words in (
        "3 islands",
        "an outer step",
        "utilisation",
        "GB a day",
        "improve first: the link of island 1",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--plan", "nothing"], "nothing"),
        (["--plan", "demo", "--islands", "1", "--mbit", "1,2"], "2 links for 1 islands"),
        (["--plan", "demo", "--rtt-ms", "-1"], "--rtt-ms"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused_in_a_sentence(capsys, arguments, reason) -> None:
    assert main(["simulate", *arguments]) == 2
    assert reason in capsys.readouterr().err
