"""What one enrolled member can do to a run of others: nothing that lasts, and the honest are not blamed."""

import asyncio

import msgspec
import pytest
from worlds.clock import run
from worlds.hostile import Hostile, honest, steps_in
from worlds.swarm import LAYOUT, Swarm

from atoll.agent.donor import ANSWERS_AT_ONCE
from atoll.agent.reduce import Reduction
from atoll.swarm import messages as m
from atoll.swarm.layout import digest, root
from atoll.swarm.services import FETCH, REDUCE
from atoll.swarm.transport import TransportError


def excluded(swarm: Swarm) -> set[str]:
    return {event.island for event in swarm.events() if event.kind == "excluded"}


async def start_hostile(swarm: Swarm, **settings: object) -> None:
    """Start "x", an agent like any other until a test changes it."""
    swarm.start("x", step_seconds=0.25, **settings)
    await swarm.until(lambda: "x" in swarm.ready(), "x is ready")


def spoil_payload(swarm: Swarm, spoil) -> None:
    """Have x change each encoded piece before it is named: its proposals are then of these bytes."""
    work = swarm.agents["x"].work
    report = work._report

    def spoiled(event) -> None:
        if type(event).__name__ == "Encoded":
            pieces, table = work.payload.pieces, bytearray(work.payload.pieces.table)
            pieces.table = table
            for index in range(LAYOUT.num_pieces):
                slot = pieces.slot(index)
                pieces.seal(index, spoil(slot))
            proposal = msgspec.structs.replace(event.proposal, payload=root(bytes(table)))
            event = type(event)(proposal)
        report(event)

    work._report = spoiled


def special_scales(value: float):
    def spoil(slot) -> int:
        slot[:4].view("<f4")[:] = value
        return len(slot)

    return spoil


def scales_only(slot) -> int:
    return 4


def three_bytes(slot) -> int:
    return 3


PAYLOADS = {
    "infinite scales": special_scales(float("inf")),
    "NaN scales": special_scales(float("nan")),
    "values of 1e30": special_scales(1e28),
    "pieces of scales only": scales_only,
    "pieces of three bytes": three_bytes,
}


@pytest.mark.parametrize("spoil", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_payload_that_is_not_what_it_says_leaves_its_maker_out_and_nobody_else(tmp_path, spoil) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abc")
        await start_hostile(swarm)
        spoil_payload(swarm, spoil)
        await swarm.until(lambda: excluded(swarm), "x is found out")
        assert await steps_in(swarm, 6) >= 3
        assert excluded(swarm) == {"x"}
        swarm.assert_equal_roots()
        parameters = swarm.agents["a"].work.state.parameters
        assert abs(parameters).max() < 100
        await swarm.stop()

    run(main())


def test_five_identities_of_one_ticket_that_hold_a_false_root_commit_nothing(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm)
        liars = ("v", "w", "x", "y", "z")
        swarm.store.ticket_of = lambda island: b"one" if island in liars else island.encode()
        for name in liars:
            swarm.start(name, step_seconds=0.25)
        await swarm.until(lambda: set(liars) <= swarm.ready(), "all are ready")
        for name in liars:
            link = swarm.agents[name]._link

            def lying(message, send=link.send) -> None:
                if isinstance(message, m.Held):
                    message = msgspec.structs.replace(message, next_root=digest(b"another state"))
                send(message)

            link.send = lying
        await swarm.until(lambda: excluded(swarm) == set(liars), "those who dissent are named")
        await swarm.until_step(swarm.head + 3)
        assert digest(b"another state") not in {record.next_root for record in swarm.store.commits()}
        await swarm.until(lambda: set("abcd") <= swarm.ready(), "the honest go on")
        await swarm.stop()

    run(main())


def test_who_accuses_everybody_loses_its_own_part(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm)
        await start_hostile(swarm)
        accused = iter("abcdr" * 1000)

        def accuse(sender, receiver, message) -> None:
            if receiver == "x" and type(message).__name__ == "Attempt":
                owners = {part.owner for part in message.slices}
                peer = next(name for name in accused if name in owners)
                fault = m.Fault(
                    step=message.step, number=message.number, peer=peer, kind="unreachable", text="no"
                )
                asyncio.get_running_loop().call_soon(swarm.agents["x"]._link.send, fault)

        swarm.network.watches.append(accuse)
        await swarm.until(lambda: "x" in excluded(swarm), "the accuser is left out", 60)
        assert await steps_in(swarm, 10) >= 6
        assert excluded(swarm) == {"x"}
        await swarm.stop()

    run(main())


def test_who_proposes_and_never_sends_is_left_out_for_doubling_times(tmp_path, monkeypatch) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abc")
        await start_hostile(swarm)
        send = Reduction._send_pieces

        async def never(self, stream, part, payload) -> None:
            await (asyncio.sleep(1e6) if self.me == "x" else send(self, stream, part, payload))

        monkeypatch.setattr(Reduction, "_send_pieces", never)
        await swarm.until(lambda: "x" in excluded(swarm), "it is left out", 60)
        before = swarm.head
        await swarm.until_step(before + 12, 60)
        attempts = [
            event for event in swarm.events() if event.kind == "attempt closed" and event.step > before
        ]
        assert len(attempts) <= 6
        assert excluded(swarm) == {"x"}
        await swarm.stop()

    run(main())


def test_an_owner_that_tells_each_peer_another_slice_is_charged_and_its_victims_are_not(
    tmp_path, monkeypatch
) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "abc")
        await start_hostile(swarm)
        link = swarm.agents["x"]._link
        send = link.send

        def lying(message) -> None:
            if isinstance(message, m.Reduced):
                message = msgspec.structs.replace(message, digest=digest(b"a slice that nobody has"))
            send(message)

        link.send = lying
        await asyncio.sleep(3)
        assert await steps_in(swarm, 10) >= 6
        standing = swarm.coordinator.protocol.standing
        assert not excluded(swarm) & set("abcr")
        assert not standing.ownerless_steps.keys() & set("abcr")
        await swarm.stop()

    run(main())


def test_floods_of_one_member_slow_down_itself_alone(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "ab")
        calm = await steps_in(swarm, 10)
        flooder = Hostile(swarm, "x")
        stream = await flooder.enter(reads=False)
        num_sent = 0

        async def flood() -> None:
            nonlocal num_sent
            while True:
                await stream.send(m.WantRecords(0))
                await stream.send(m.Records(()))
                num_sent += 2

        flooding = asyncio.create_task(flood())
        assert await steps_in(swarm, 10) >= calm - 1
        assert num_sent < 1500
        outbox = swarm.coordinator._outboxes.get("x")
        assert outbox is None or outbox._messages.qsize() < 100
        await swarm.until(lambda: "x" not in swarm.coordinator._outboxes, "who does not read is let go", 60)
        flooding.cancel()
        await flooder.leave()
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

        async def counted(stream, found) -> None:
            nonlocal held, most
            held += 1
            most = max(most, held)
            try:
                await answer(stream, found)
            finally:
                held -= 1

        donor._answer = counted
        for _ in range(100):
            await (await greedy.dial(addresses, "a", FETCH)).send(m.FetchChunk(0))
            await (await greedy.dial(addresses, "a", REDUCE)).send(m.ReduceOpen(10**6, 1, 0), bytes(4096))
        await asyncio.sleep(1)
        doorkeeper = swarm.agents["a"]._transport._doorkeeper
        assert {len(streams) for (_, who), streams in doorkeeper._open.items() if who == "x"} == {16}
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
