"""What one enrolled member can do to a run of others: nothing that lasts, and the honest are not blamed."""

import asyncio

import pytest
from worlds.attacks import ATTACKS, FALSE_ROOT, Floods
from worlds.clock import run
from worlds.hostile import Hostile, honest, steps_in
from worlds.swarm import Swarm

from atoll.agent.donor import ANSWERS_AT_ONCE
from atoll.samples import num_samples
from atoll.swarm import messages as m
from atoll.swarm.services import FETCH, REDUCE
from atoll.swarm.transport import TransportError


def excluded(swarm: Swarm) -> set[str]:
    return {event.island for event in swarm.events() if event.kind == "excluded"}


MARKS = {"opens streams, and reads none": [pytest.mark.slow]}  # 40 s of processor


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in ATTACKS])
def test_an_attack_of_a_member_costs_the_others_little_and_only_it_is_left_out(tmp_path, name: str) -> None:
    async def main() -> None:
        attack, swarm = ATTACKS[name](), Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abcd" if len(attack.liars) > 1 or name.startswith("accuses") else "abc")
        await attack.prepare(swarm)
        await swarm.until_step(swarm.head + 1)
        try:
            await attack.begin(swarm)
            if attack.is_left_out:

                def all_are_out() -> bool:
                    """The status says so as long as the step is open that they are left out of."""
                    notes = [island.note for island in swarm.board.status().islands]
                    is_said = any(note.startswith("left out of step ") for note in notes)
                    return is_said and excluded(swarm) >= set(attack.liars)

                await swarm.until(all_are_out, "they are left out", 40)
            seconds = 6.0 + attack.lost_seconds
            assert await steps_in(swarm, seconds) >= seconds - attack.lost_seconds - 1
            assert excluded(swarm) == (set(attack.liars) if attack.is_left_out else set())
            assert not swarm.coordinator.protocol.standing.ownerless_steps.keys() & set("abcdr")
            assert FALSE_ROOT not in {record.next_root for record in swarm.store.commits()}
            swarm.assert_equal_roots()
            assert abs(swarm.agents["a"].work.state.parameters).max() < 100
        finally:
            await attack.end()  # what it has put in the place of ours
            await swarm.stop()

    run(main())


def test_who_proposes_and_never_sends_is_left_out_for_doubling_times(tmp_path) -> None:
    async def main() -> None:
        attack, swarm = ATTACKS["proposes and never sends"](), Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abc")
        await attack.prepare(swarm)
        await attack.begin(swarm)
        before = swarm.head
        await swarm.until_step(before + 14, 90)
        closed = [event for event in swarm.events() if event.kind == "attempt closed"]
        assert sum(event.step > before for event in closed) <= 5  # of steps 1, 3, 6, 11
        await attack.end()
        await swarm.stop()

    run(main())


def test_who_proposes_at_once_shortens_steps_by_half_at_most_and_has_no_majority(tmp_path) -> None:
    async def main() -> None:
        attack, swarm = ATTACKS["proposes at once"](), Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abcd")
        await attack.prepare(swarm)
        await attack.begin(swarm)
        await swarm.until_step(swarm.head + 20)
        for record in swarm.store.commits()[-8:]:
            done = {island: num_samples(lease) // 2 for island, lease in record.leases}
            assert done["x"] == 4
            assert min(done[island] for island in "abcd") >= 2
            weights = {share.island: share.weight for share in record.participants}
            assert weights["x"] <= 0.34
        await attack.end()
        await swarm.stop()

    run(main())


def test_who_goes_further_than_usual_is_clipped_and_all_hold_the_same(tmp_path) -> None:
    async def main() -> None:
        attack, swarm = ATTACKS["goes five times as far"](), Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abc")
        await attack.prepare(swarm)
        await swarm.until_step(swarm.head + 2)
        await attack.begin(swarm)
        await swarm.until_step(swarm.head + 5)
        newest = {share.island: share.clip for share in swarm.store.commits()[-1].participants}
        assert {island for island, clip in newest.items() if clip < 1} == {"x"}
        assert 0.4 < newest["x"] < 0.8
        assert any(event.kind == "clipped" and event.island == "x" for event in swarm.events())
        swarm.assert_equal_roots()
        await attack.end()
        await swarm.stop()

    run(main())


def test_who_floods_is_read_slowly_and_let_go(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "ab")
        attack = Floods(m.WantRecords(0), m.Records(()))
        await attack.begin(swarm)
        await asyncio.sleep(10)
        assert attack.num_sent < 1500
        outbox = swarm.coordinator._outboxes.get("h")
        assert outbox is None or outbox._messages.qsize() < 100
        await swarm.until(lambda: "h" not in swarm.coordinator._outboxes, "who does not read is let go", 60)
        await attack.end()
        await swarm.stop()

    run(main())


def test_an_agent_holds_few_answers_for_one_that_does_not_read(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "ab")
        greedy = Hostile(swarm, "x")
        addresses = swarm.coordinator.protocol.members["a"].addresses
        donor, held, most = swarm.agents["a"].work.donor, 0, 0
        answer = donor._answer

        async def counted(*given) -> None:
            nonlocal held, most
            held += 1
            most = max(most, held)
            try:
                await answer(*given)
            finally:
                held -= 1

        donor._answer = counted
        for _ in range(100):
            await (await greedy.dial(addresses, "a", FETCH)).send(m.FetchChunk(0))
            await (await greedy.dial(addresses, "a", REDUCE)).send(m.ReduceOpen(10**6, 1, 0), bytes(4096))
        await asyncio.sleep(1)
        doorkeeper = swarm.agents["a"]._transport._doorkeeper
        opened = {name: len(streams) for (name, who), streams in doorkeeper._open.items() if who == "x"}
        assert opened == {FETCH.name: 16, REDUCE.name: 32}
        assert 0 < most <= ANSWERS_AT_ONCE
        await swarm.until_step(swarm.head + 3)
        await greedy.leave()
        await swarm.stop()

    run(main())


def test_an_eviction_ends_the_line_of_who_does_not_read_and_reaches_its_peers(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "ab")
        gone = Hostile(swarm, "x")
        control = await gone.enter(reads=False)
        addresses = swarm.coordinator.protocol.members["a"].addresses
        fetch = await gone.dial(addresses, "a", FETCH)
        await fetch.send(m.FetchTable(0))
        await fetch.receive(5)
        swarm.store.evicted = lambda: ("x",)
        swarm.coordinator.tell("x", m.Evicted("for a test"))
        swarm.coordinator.tell_revoked()
        await control.send(
            m.Fault(step=swarm.head, number=1, peer="a", kind="unreachable", text="still here")
        )
        await asyncio.sleep(3)
        assert not swarm.coordinator.protocol.members["x"].connected
        assert not [event for event in swarm.events() if event.kind == "fault"]
        with pytest.raises(TransportError):
            await fetch.send(m.FetchTable(0))
            await fetch.receive(5)
        again = await gone.dial(addresses, "a", FETCH)
        with pytest.raises(TransportError):
            await again.send(m.FetchTable(0))
            await again.receive(5)
        await gone.leave()
        await swarm.stop()

    run(main())
