"""What the operator asks of a coordinator, and what its files know when it does not run."""

import msgspec
import pytest
from worlds.clock import run
from worlds.network import FaultyTransport
from worlds.swarm import HOST, Swarm

from atoll.errors import UserError
from atoll.metrics import Score
from atoll.run.directory import RunDir
from atoll.run.kept import kept_in
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR, OPERATOR
from atoll.swarm.services import OPERATE
from atoll.swarm.transport import call


async def asked(swarm: Swarm, request):
    return await call(
        FaultyTransport(swarm.network, OPERATOR), (HOST.for_members,), COORDINATOR, OPERATE, request, 5.0
    )


def test_an_island_is_evicted_and_readmitted_by_its_id_a_part_of_it_or_its_contributor(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        secret = swarm.store.new_ticket(9, 1.0)
        for island, contributor in (("aaaa1", "ann"), ("aaab2", "bob"), ("cccc3", "bob"), ("dddd4", "aaab")):
            swarm.store.redeem(secret, island, contributor, b"")
        assert await asked(swarm, m.EvictIsland("ann", "late")) == m.IslandEvicted("aaaa1", "ann", 3)
        assert await asked(swarm, m.EvictIsland("cccc", "")) == m.IslandEvicted("cccc3", "bob", 2)
        for called, reason in (
            ("bob", "bob: that is aaab2 and cccc3; name one of them by its id"),
            ("aaab", "aaab: that is aaab2 and dddd4; name one of them by its id"),
            ("a", "a: no such island in this run; `atoll status` lists them"),
            ("", ": no such island in this run; `atoll status` lists them"),
        ):
            assert await asked(swarm, m.EvictIsland(called, "")) == m.RequestRefused(reason)
        rows = {row.island: row for row in swarm.board.status().islands}
        assert {island: row.evicted for island, row in rows.items()} == {"aaaa1": "late", "cccc3": "evicted"}
        assert await asked(swarm, m.ReadmitIsland("ann")) == m.IslandReadmitted("aaaa1", "ann")
        refused = await asked(swarm, m.ReadmitIsland("ann"))
        assert isinstance(refused, m.RequestRefused)
        assert "not evicted" in refused.reason
        assert [event.kind for event in swarm.events()][-3:] == ["evicted", "evicted", "readmitted"]
        await swarm.stop()

    run(main())


@pytest.mark.parametrize("request_", [m.Invite(0, 1.0), m.Invite(1, float("inf")), m.Invite(1, float("nan"))])
def test_an_invitation_without_sense_is_refused_at_the_door(tmp_path, request_) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        assert isinstance(await asked(swarm, request_), m.RequestRefused)
        await swarm.stop()

    run(main())


def test_what_a_member_measured_of_a_state_is_in_the_events_file_and_in_the_status(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=2)
        await swarm.start_coordinator()
        assert swarm.board.status().evaluation is None
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_finished("a", "b")
        scores = {"arc_challenge": Score(0.25, 0.0125)}
        told = m.TellEvaluation(
            step=2, root=swarm.coordinator.protocol.head_root, scores=scores, heldout_losses={"books": 4.5}
        )
        assert await asked(swarm, told) == m.EvaluationTold()
        event = swarm.events()[-1]
        assert event.text == "state 2 was evaluated: arc_challenge 0.2500 ± 0.0125, held-out books 4.500"
        found = swarm.board.status().evaluation
        assert found is not None
        assert (found.step, found.scores, found.root) == (
            2,
            scores,
            swarm.coordinator.protocol.head_root.hex(),
        )
        await swarm.stop()
        await swarm.start_coordinator()
        assert swarm.board.status().evaluation == found, "the next coordinator knows it from the file"
        await swarm.stop()

    run(main())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": 1}, "no state 1 with root"),
        ({"step": -1}, "no state -1 with root"),
        ({"root": b"other"}, "no state 0 with root"),
        ({"scores": {}}, "needs a figure"),
        ({"scores": {"x": Score(float("nan"))}}, "needs a figure"),
        ({"scores": {"x": Score(1.0, float("inf"))}}, "needs a figure"),
        ({"heldout_losses": {"books": float("inf")}}, "needs a figure"),
        ({"scores": {str(n): Score(1.0) for n in range(65)}}, "nothing to ask"),
        ({"scores": {"a\nb": Score(1.0)}}, "nothing to ask"),
    ],
)
def test_an_evaluation_of_no_state_or_without_sense_is_refused(tmp_path, changes, reason) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        told = m.TellEvaluation(step=0, root=swarm.genesis_root, scores={"x": Score(1.0)}, heldout_losses={})
        refused = await asked(swarm, msgspec.structs.replace(told, **changes))
        assert isinstance(refused, m.RequestRefused)
        assert reason in refused.reason
        assert await asked(swarm, told) == m.EvaluationTold()
        await swarm.stop()

    run(main())


def test_the_files_of_a_coordinator_that_is_gone_know_what_it_said(tmp_path) -> None:
    run_dir = RunDir(tmp_path / "run")

    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        swarm.events_path = run_dir.events
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_finished("a", "b")
        told = swarm.board.status()
        await swarm.stop()
        (tmp_path / "db").rename(run_dir.coordinator)
        before = {path: path.read_bytes() for path in run_dir.coordinator.glob("run.sqlite")}
        kept = kept_in(run_dir)
        assert kept is not None
        assert (kept.hosted, kept.finished, kept.step, kept.root) == (False, True, told.step, told.root)
        assert 0 <= told.time - kept.time < 60, "when it was last alive"
        assert {row.island: row.committed_tokens for row in kept.islands} == {
            row.island: row.committed_tokens for row in told.islands if row.committed_tokens
        }
        assert not any(row.present for row in kept.islands)
        assert [event.text for event in kept.events][-len(told.events) :] != []
        assert before == {path: path.read_bytes() for path in run_dir.coordinator.glob("run.sqlite")}

    run(main())


def test_a_database_that_is_none_is_named(tmp_path) -> None:
    run_dir = RunDir(tmp_path)
    assert kept_in(run_dir) is None
    run_dir.coordinator.mkdir()
    (run_dir.coordinator / "run.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"run\.sqlite: this database cannot be read"):
        kept_in(run_dir)
