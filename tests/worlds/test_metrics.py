"""What an island measures reaches the coordinator, its status and its events file."""

import msgspec
from worlds.clock import run
from worlds.swarm import Swarm
from worlds.trainer import LOSS, MEASURED

from atoll.events import Committed
from atoll.metrics import Metrics
from atoll.status import RunStatus


def by_its_trainer(metrics: Metrics) -> dict[str, float | None]:
    """The figures that a trainer of these worlds always gives alike."""
    figures = msgspec.structs.asdict(metrics)
    return {name: figures[name] for name in ("loss", *MEASURED)}


def test_metrics_stand_in_the_status_and_in_every_commit(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_finished("a", "b")
        status = swarm.board.status()
        commits = [event for event in swarm.events() if isinstance(event, Committed)]
        await swarm.stop()

        assert len(commits) == 4
        for commit in commits:
            assert sum(gave.tokens for gave in commit.participants.values()) == commit.tokens
            for gave in commit.participants.values():
                assert by_its_trainer(gave.metrics) == {"loss": LOSS, **MEASURED}
                assert gave.metrics.tokens_per_second > 0
        for name in ("a", "b"):
            given = [commit.participants[name] for commit in commits if name in commit.participants]
            seconds = [gave.metrics.compute_seconds for gave in given]
            assert seconds[0] > 0
            assert seconds == sorted(seconds), "a sum over its proposals"
        rows = {row.island: row for row in status.islands}
        assert by_its_trainer(rows["a"].metrics) == {"loss": LOSS, **MEASURED}
        assert rows["a"].metrics.compute_seconds > 0
        assert rows["r"].metrics.loss is None, "a relay has no trainer"

        assert status.finished
        assert (status.step, status.num_outer_steps) == (4, 4)
        assert status.committed_tokens == sum(commit.tokens for commit in commits)
        assert "finished" in [event.kind for event in status.events]
        assert msgspec.json.decode(msgspec.json.encode(status), type=RunStatus) == status

    run(main())
