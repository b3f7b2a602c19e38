"""The ledger: how many tokens of which source each contributor gave, by commit records and mixture alone."""

import asyncio
import io
from collections import Counter

from rich.console import Console
from worlds.swarm import Swarm

import examples
from atoll.data.mixture import Mixture
from atoll.status import IslandStatus, ledger
from atoll.terminal import status_table

CONTEXT_LENGTH = 8  # of the test swarm's rules
MIXTURE = Mixture([{"web": 3, "code": 1}], {"web": 10, "code": 10}, 0)


def an_island(island: str, contributor: str, tokens: dict[str, int]) -> IslandStatus:
    return examples.island_status(
        island=island,
        contributor=contributor,
        relay=not tokens,
        committed_tokens=sum(tokens.values()),
        committed_tokens_by_source=tokens,
    )


def test_the_ledger_is_what_the_commits_say_also_after_a_restart(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=6)
        swarm.count_samples = MIXTURE.count
        await swarm.start_coordinator()
        assert swarm.board.status().ledger == {}
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
                (row.island, source): n
                for row in status.islands
                for source, n in row.committed_tokens_by_source.items()
            }
            assert found == expected
            for row in status.islands:
                assert sum(row.committed_tokens_by_source.values()) == row.committed_tokens
        assert 0 < sum(early.ledger[early.islands[0].island].values()) < sum(expected.values())
        await swarm.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_islands_of_one_contributor_are_one_line_and_an_unnamed_island_is_its_own() -> None:
    rows = [
        an_island("1", "ann", {"web": 8, "code": 2_000_000}),
        an_island("2", "", {"web": 1}),
        an_island("3", "ann", {"web": 8}),
        an_island("4", "relay", {}),
    ]
    by_contributor = ledger(rows)
    assert by_contributor == {"2": {"web": 1}, "ann": {"code": 2_000_000, "web": 16}}
    status = examples.run_status(finished=True, step=1, committed_tokens=1, ledger=by_contributor)
    shown = io.StringIO()
    Console(width=100, file=shown).print(status_table(status, 100))
    lines = [line.split() for line in shown.getvalue().splitlines()[-4:]]
    assert lines == [
        ["committed", "by", "code", "web", "in", "all"],
        ["2", "1", "1"],
        ["ann", "2", "M", "16", "2", "M"],
        ["all", "2", "M", "17", "2", "M"],
    ]
