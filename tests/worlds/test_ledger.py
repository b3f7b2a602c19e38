"""The ledger: how many tokens of which source each contributor gave, by commit records and mixture alone."""

import asyncio
import io
from collections import Counter

from rich.console import Console
from worlds.swarm import Swarm

from atoll.data.mixture import Mixture
from atoll.run import operate
from atoll.terminal import status_table

CONTEXT_LENGTH = 8  # of the test swarm's rules
MIXTURE = Mixture([{"web": 3, "code": 1}], {"web": 10, "code": 10}, 0)


def test_the_ledger_is_what_the_commits_say_also_after_a_restart(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=6)
        swarm.count_samples = MIXTURE.count
        await swarm.start_coordinator()
        assert operate.ledger(swarm.board.status()["islands"]) == {}
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_step(2)
        early = swarm.board.status()  # later calls must not count these commits again
        await swarm.until_finished("a", "b")
        told = [swarm.board.status()]
        await swarm.kill_coordinator()
        await swarm.start_coordinator()
        told.append(swarm.board.status())

        expected: Counter[tuple[str, str]] = Counter()
        for record in swarm.store.commits():
            for island, lease in record.leases:
                for first, count in lease:
                    for index in range(first, first + count):
                        expected[island, MIXTURE.turn(index, record.stage_starts)[0]] += CONTEXT_LENGTH
        for status in told:
            found = {
                (row["island"], source): n
                for row in status["islands"]
                for source, n in row["sources"].items()
            }
            assert found == expected
            assert all(sum(row["sources"].values()) == row["tokens"] for row in status["islands"])
        first = early["islands"][0]["island"]
        assert 0 < sum(operate.ledger(early["islands"])[first].values()) < sum(expected.values())
        await swarm.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_islands_of_one_contributor_are_one_line_and_an_unnamed_island_is_its_own() -> None:
    rows = [
        {"island": "1", "contributor": "ann", "sources": {"web": 8, "code": 2_000_000}},
        {"island": "2", "contributor": "", "sources": {"web": 1}},
        {"island": "3", "contributor": "ann", "sources": {"web": 8}},
        {"island": "4", "contributor": "relay", "sources": {}},
    ]
    ledger = operate.ledger(rows)
    assert ledger == {"2": {"web": 1}, "ann": {"code": 2_000_000, "web": 16}}
    facts = {
        "run": "r",
        "finished": True,
        "tokens": 1,
        "root": "",
        "islands": [],
        "ledger": ledger,
        "events": [],
    }
    shown = io.StringIO()
    Console(width=100, file=shown).print(status_table(facts))
    lines = [line.split() for line in shown.getvalue().splitlines()[-4:]]
    assert lines == [
        ["committed", "by", "code", "web", "in", "all"],
        ["2", "1", "1"],
        ["ann", "2", "M", "16", "2", "M"],
        ["all", "2", "M", "17", "2", "M"],
    ]
