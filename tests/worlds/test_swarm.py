"""The life of a swarm in one process: it agrees, loses members and takes them back, loses its coordinator."""

import asyncio
import time
from itertools import pairwise

import numpy as np
import pytest
from worlds.clock import run
from worlds.swarm import Swarm
from worlds.trainer import TARGET, TRAINER

from atoll.agent import checkpoint
from atoll.agent.log import Entry
from atoll.samples import merge, num_samples
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.records import Assembled, Message
from atoll.swarm.transport import NotUnderstood


def genesis(swarm: Swarm) -> np.ndarray:
    """The parameters of state 0."""
    return checkpoint.newest([swarm.directory / "genesis"])[0].parameters


def distance(parameters: np.ndarray) -> float:
    """How far the mean of a tensor is from what trainers move it to."""
    return abs(float(parameters[:1000].mean()) - float(TARGET))


def test_three_islands_and_a_relay_agree_bit_for_bit(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=6)
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_finished("a", "b", "c")
        swarm.assert_equal_roots()
        final = [t.roots[6] for t in swarm.trainers.values()]
        assert len(set(final)) == 1
        before = distance(genesis(swarm))
        assert distance(swarm.agents["r"].work.state.parameters) < 0.9 * before, "it learned"
        records = swarm.store.commits()
        assert [r.step for r in records] == list(range(6))
        assert any(len(r.participants) == 3 for r in records)
        await swarm.stop()

    run(main())


def test_an_island_dies_and_comes_back(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=40)
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        await swarm.until_step(4)
        await swarm.kill("b")
        await swarm.until_step(7)
        assert all(s.island != "b" for s in swarm.store.commits()[6].participants)
        swarm.start("b", step_seconds=0.02)
        back = len(swarm.store.commits())
        await swarm.until(
            lambda: any(s.island == "b" for r in swarm.store.commits(back) for s in r.participants), "b back"
        )
        swarm.assert_equal_roots()
        spent = sorted(x for r in swarm.store.commits() for _, lease in r.leases for x in lease)
        assert all(sum(left) <= right[0] for left, right in pairwise(spent)), "a sample was spent twice"
        await swarm.stop()

    run(main())


def test_an_island_that_stood_still_for_a_while_proposes_what_it_has_done(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=60)
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=1.0)
        clock = asyncio.get_running_loop().time
        await swarm.until_step(6)
        began = clock()
        await asyncio.sleep(1.5)
        swarm.freeze("b" + TRAINER)
        await asyncio.sleep(1.5)
        swarm.thaw("b" + TRAINER)
        await swarm.until_step(7)
        assert clock() - began < 5.0, "nobody waited for the rest of b's work"
        await swarm.until_step(8)
        whole, part, after = (dict(record.leases) for record in swarm.store.commits()[5:8])
        assert [num_samples(whole[name]) for name in "abc"] == [8, 8, 8]
        assert [num_samples(part[name]) for name in "abc"] == [8, 6, 8], "b ended the one it was at"
        ((first, count),) = part["b"]
        spent = merge(span for lease in after.values() for span in lease)
        first_unused, end_unused = first + count, first + 8
        assert any(start <= first_unused and end_unused <= start + size for start, size in spent), (
            "what it did not do is done next"
        )
        await swarm.stop()

    run(main())


def test_a_late_joiner_recovers_while_the_others_go_on(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=60)
        await swarm.start_coordinator()
        for name in ("r", "a"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_step(12)  # so late that it takes a state from donors, not updates alone
        swarm.start("late", step_seconds=0.01)
        await swarm.until(lambda: len(swarm.trainers["late"].roots) > 2, "late takes part")
        assert min(swarm.trainers["late"].roots) > 10
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())


def test_a_killed_coordinator_goes_on_with_the_same_run(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=15)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        for step in (2, 5, 9):
            await swarm.until_step(step)
            await swarm.kill_coordinator()
            await asyncio.sleep(0.05)
            await swarm.start_coordinator()
        await swarm.until_finished("a", "b")
        assert swarm.coordinator.protocol.term.counter == 4
        swarm.assert_equal_roots()
        assert [r.step for r in swarm.store.commits()] == list(range(15))
        await swarm.stop()

    run(main())


def test_a_dead_connection_costs_ownership_and_not_participation(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=8)
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        await swarm.until_step(2)
        swarm.network.cut_edge("a", "b")
        await swarm.until_finished("a", "b", "c")
        swarm.assert_equal_roots()
        assert len(swarm.store.commits()[-1].participants) == 3, "both of its ends still take part"
        assert any(e.kind == "fault" for e in swarm.events())
        await swarm.stop()

    run(main())


def test_islands_that_only_dial_out_work_through_the_relay(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        swarm.start("r", relay=True)
        for name in ("a", "b"):
            swarm.start(name, dial_only=True, step_seconds=0.01)
        await swarm.until_finished("a", "b")
        swarm.assert_equal_roots()
        assert any(len(r.participants) == 2 for r in swarm.store.commits())
        await swarm.stop()

    run(main())


def test_an_island_that_is_too_slow_is_left_out_and_goes_on_from_the_head(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_step(4)
        swarm.network.freeze(swarm.trainers["b"].name)
        head = swarm.coordinator.protocol.head
        await swarm.until_step(head + 2)  # after the learned deadline
        swarm.network.thaw(swarm.trainers["b"].name)
        await swarm.until(
            lambda: any(s.island == "b" for s in swarm.store.commits()[-1].participants), "b takes part again"
        )
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())


def test_all_agents_die_and_the_run_goes_on(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=500)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.01)
        await swarm.until_step(5)
        for name in ("r", "a", "b"):
            await swarm.kill(name)
        head = swarm.coordinator.protocol.head
        for name in ("a", "b"):
            swarm.start(name, step_seconds=0.01)
        await swarm.until_step(head + 3)
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())


def test_the_coordinator_of_a_restored_backup_learns_from_the_islands(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=40)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        await swarm.until_step(3)
        await swarm.kill_coordinator()
        backup = {path.name: path.read_bytes() for path in (tmp_path / "db").glob("run.sqlite*")}
        await swarm.start_coordinator()
        await swarm.until_step(8)
        history = [record.digest() for record in swarm.store.commits()]
        await swarm.kill_coordinator()
        for path in (tmp_path / "db").glob("run.sqlite*"):
            path.unlink()
        for name, data in backup.items():
            (tmp_path / "db" / name).write_bytes(data)
        await swarm.start_coordinator()
        assert swarm.coordinator.protocol.head < 8
        await swarm.until_step(len(history) + 2, seconds=90)
        assert [record.digest() for record in swarm.store.commits()][: len(history)] == history
        assert any(event.kind == "behind" for event in swarm.events())
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())


def test_an_update_that_is_being_held_when_its_commit_comes_is_held_once(tmp_path) -> None:
    """A commit once ended the task of holding but not its thread, and two threads wrote one file."""

    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=0.25)
        await swarm.until_step(2)

        def silence(sender: str, receiver: str, message: Message) -> None:
            if isinstance(message, Assembled) and receiver == "c":
                swarm.network.silence(COORDINATOR, "c")
                swarm.network.watches.remove(silence)

        swarm.network.watches.append(silence)
        await swarm.until(lambda: silence not in swarm.network.watches, "the update is assembled")
        step, log = swarm.head, swarm.agents["c"].work.log
        held: list[int] = []
        hold = log.hold

        def slow_hold(entry: Entry) -> None:
            held.append(entry.header.step)
            time.sleep(0.05)
            hold(entry)

        log.hold = slow_hold
        await swarm.until_step(step + 1)
        swarm.network.mend_edge(COORDINATOR, "c")  # now c hears at once what is assembled, and the commit
        await swarm.until(lambda: swarm.agents["c"].machine.version > step, "c goes on")
        assert held.count(step) == 1
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())


def test_an_agent_of_another_version_is_told_why_it_is_refused(tmp_path) -> None:
    class Foreign:
        peer, peer_host = "foreigner", "memory"

        def __init__(self) -> None:
            self.heard: list[Message] = []

        async def receive(self, seconds: float) -> tuple[Message, memoryview]:
            raise NotUnderstood("not a message of this protocol: unknown field `colour`")

        async def send(self, message: Message, bulk: bytes = b"") -> None:
            self.heard.append(message)

    async def main() -> None:
        swarm, foreign = Swarm(tmp_path, num_outer_steps=1), Foreign()
        await swarm.start_coordinator()
        await swarm.coordinator.control(foreign)
        answer = foreign.heard[0]
        assert isinstance(answer, m.Refused) and "the run's version of atoll" in answer.reason
        kinds = [event.kind for event in swarm.events() if "unknown field `colour`" in event.text]
        assert kinds == ["refused"]
        await swarm.stop()

    run(main())


@pytest.mark.parametrize("restart", [False, True], ids=["same coordinator", "the coordinator died too"])
def test_an_island_that_comes_back_within_a_step_is_given_the_time_that_is_left(tmp_path, restart) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=1.0)
        await swarm.until_step(2)
        await asyncio.sleep(1.0)
        if restart:
            await swarm.kill_coordinator()
        await swarm.kill("a")
        if restart:
            await swarm.start_coordinator()
        await asyncio.sleep(1.5)  # b's beats say how far the step is
        swarm.start_again("a")
        await swarm.until_finished("a", "b")
        tokens = {share.island: share.tokens for share in swarm.store.commits()[2].participants}
        assert tokens["b"] == 64 and 0 < tokens["a"] < 64, "a did what fitted into the rest of the step"
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())
