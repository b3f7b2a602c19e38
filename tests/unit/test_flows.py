"""How pieces flow between agents: paced, over lanes, within room; and what a link is seen to carry."""

import asyncio
import itertools
import socket

import pytest
from worlds import clock
from worlds.swarm import LAYOUT

from atoll.agent.donor import YIELD_SECONDS, Donor
from atoll.agent.intake import Intake
from atoll.agent.lanes import (
    LANE_BYTES,
    LONG_SECONDS,
    MAX_LANES,
    MAX_LANES_OF_ALL,
    MAX_WARMED,
    MIN_LANES,
    PIECES_A_LANE,
    Lanes,
)
from atoll.agent.log import UpdateLog
from atoll.agent.pacer import PROBE_FROM, PROBE_GAIN, PROBE_SECONDS, QUEUE_SECONDS, Pacer, Uplink
from atoll.agent.patience import Patience
from atoll.agent.rates import ERR_LOW, FORGET, LEAST_BYTES, LOOK_SECONDS, STARVED_SECONDS, LinkRates
from atoll.agent.state import OuterState
from atoll.cli import parser
from atoll.cli.join import join_settings
from atoll.coordinator.links import USED_SHARE
from atoll.errors import UserError
from atoll.metrics import Rates
from atoll.recipe import own_island
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.limiter import BURST_SECONDS, Limiter
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.services import PING
from atoll.swarm.sockets import Connections, Crossed
from atoll.swarm.transport import Stream, TransportError

PIECE = memoryview(b"piece")


# -------------------------------------------------------------------------------------------------- the pacer
def pacer_of(num_pieces: int, seconds: float) -> Pacer:
    """The pacer of an agent that sends to one other only."""
    return Pacer(num_pieces, Uplink(num_pieces, seconds))


def leaves_at(num_pieces: int, seconds: float, stalls: dict[int, float] | None = None) -> list[float]:
    """When each piece leaves; `stalls` are seconds that sending one takes."""

    async def main() -> list[float]:
        pacer, loop = pacer_of(num_pieces, seconds), asyncio.get_running_loop()
        moments: list[float] = []
        for number in range(num_pieces):
            await pacer.turn()
            moments.append(loop.time())
            await asyncio.sleep((stalls or {}).get(number, 0.0))
        return moments

    return clock.run(main())


def test_a_flow_is_spread_over_its_planned_time() -> None:
    moments = leaves_at(100, 50.0)
    assert 0.95 * 50.0 < moments[-1] - moments[0] < 50.0
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert max(gaps) < 0.6


def test_a_flow_is_faster_for_a_while_so_that_a_faster_link_shows() -> None:
    moments = [moment - PROBE_FROM * 10.0 for moment in leaves_at(1000, 10.0)]
    probing = sum(0 <= moment < PROBE_SECONDS for moment in moments)
    assert probing == pytest.approx(PROBE_GAIN * 1000 * PROBE_SECONDS / 10.0, abs=2)


def test_what_was_held_up_leaves_hardly_faster_than_planned_if_it_is_all_that_there_is() -> None:
    moments = leaves_at(100, 50.0, stalls={40: 5.0})
    assert 50.0 < moments[-1] - moments[0] < 55.0
    gaps = [after - before for before, after in itertools.pairwise(moments[42:])]
    assert min(gaps) > 0.5 / 1.03


def test_one_flow_that_was_held_up_makes_good_beside_others() -> None:
    async def main() -> list[float]:
        uplink = Uplink(1000, 50.0)
        held_up, others = Pacer(100, uplink), Pacer(900, uplink)

        async def send(pacer: Pacer, count: int, stall_seconds: float) -> float:
            pacer.begin()
            await asyncio.sleep(stall_seconds)
            for _ in range(count):
                await pacer.turn()
            return asyncio.get_running_loop().time()

        return await asyncio.gather(send(held_up, 100, 5.0), send(others, 900, 0.0))

    assert max(clock.run(main())) < 50.0


def test_own_pieces_leave_more_often_than_reduced_ones_and_none_waits_for_what_is_not_there() -> None:
    async def main() -> list[tuple[float, bool]]:
        pacer, left = pacer_of(120, 60.0), list[tuple[float, bool]]()

        async def send(is_own: bool, count: int) -> None:
            for _ in range(count):
                await pacer.turn(is_own)
                left.append((asyncio.get_running_loop().time(), is_own))

        await asyncio.gather(send(False, 60), send(True, 60))
        return left

    left = clock.run(main())
    both = [is_own for _, is_own in left[:100]]  # then no own piece is left
    assert sum(both) == 60
    assert not any(is_own for _, is_own in left[100:])
    assert 0.95 * 60 < left[-1][0] < 60


def test_who_gives_up_its_turn_holds_up_nobody() -> None:
    async def main() -> float:
        pacer = pacer_of(10, 100.0)
        await pacer.turn()
        gone = asyncio.create_task(pacer.turn(is_own=True))
        waits = asyncio.create_task(pacer.turn())
        await asyncio.sleep(1)
        gone.cancel()
        await waits
        return asyncio.get_running_loop().time()

    assert clock.run(main()) <= 10.0


def test_the_flows_of_an_agent_begin_one_after_the_other() -> None:
    async def main() -> list[float]:
        uplink = Uplink(20, 100.0)
        pacers = [Pacer(10, uplink, phase) for phase in (0.0, 0.5)]
        moments: list[float] = []
        for pacer in pacers:
            pacer.begin()
        for pacer in pacers:
            await pacer.turn()
            moments.append(asyncio.get_running_loop().time())
        return moments

    assert clock.run(main()) == [0.0, 5.0]


def test_what_a_queue_takes_is_not_held_back() -> None:
    assert leaves_at(100, QUEUE_SECONDS)[-1] == 0.0


def test_without_a_plan_nothing_is_held_back() -> None:
    assert leaves_at(100, 0.0)[-1] == 0.0


# ----------------------------------------------------------------------------------------------------- intake
def test_pieces_that_come_out_of_order_leave_in_order() -> None:
    async def main() -> None:
        intake = Intake(range(3, 6), 8)
        for index in (5, 3, 4):
            await intake.put(index, memoryview(bytes([index])))
        assert [bytes(await intake.take()) for _ in range(3)] == [b"\3", b"\4", b"\5"]

    clock.run(main())


def test_a_piece_far_ahead_waits_for_room_and_the_next_one_does_not() -> None:
    async def main() -> None:
        intake = Intake(range(10), 2)
        await intake.put(1, PIECE)
        ahead = asyncio.create_task(intake.put(2, PIECE))
        await asyncio.sleep(1)
        assert not ahead.done()
        await intake.put(0, PIECE)
        await intake.take()
        await asyncio.sleep(1)
        assert ahead.done()

    clock.run(main())


@pytest.mark.parametrize("index", [0, 1, 9])
def test_a_piece_that_came_before_or_is_of_another_slice_is_refused(index: int) -> None:
    async def main() -> None:
        intake = Intake(range(4), 8)
        await intake.put(0, PIECE)
        await intake.put(1, PIECE)
        await intake.take()
        with pytest.raises(TransportError, match="still to come"):
            await asyncio.wait_for(intake.put(index if index < 9 else 7, PIECE), 5)

    clock.run(main())


# --------------------------------------------------------------------------------------------------- patience
def late_of(arrivals: dict[str, float]) -> str:
    """Whom an owner does not wait for any more, that began at second 0 and waits for 10 s."""

    async def main() -> str:
        return Patience(10.0).check(arrivals)

    return clock.run(main())


def test_who_takes_as_long_as_the_others_is_waited_for_however_long_that_is() -> None:
    assert late_of({"a": 1000.0, "b": 1000.5, "c": 1001.0}) == ""
    assert late_of({"a": 4000.0, "b": 1000.0, "c": 1000.0}) == ""  # a slow link
    assert late_of({"a": 1000.0}) == ""  # there is nothing to compare it with


def test_who_makes_all_others_wait_many_times_as_long_is_not_waited_for() -> None:
    assert late_of({"a": 9.0, "b": 0.1, "c": 0.1}) == ""
    assert late_of({"a": 12.0, "b": 0.1, "c": 0.1}) == "a"
    assert late_of({"a": 1000.0, "b": 50.0, "c": 60.0}) == "a"
    assert late_of({"a": 1000.0, "b": 1000.0, "c": 60.0}) == "a"  # "b" in the next attempt


# ------------------------------------------------------------------------------------------------------ lanes
def lanes_after(
    delay_seconds: float, num_agents: int, bytes_per_second: float = 0.0, num_pieces: int = 1000
) -> int:
    """How many lanes to an agent whose answers take so long."""

    async def main() -> int:
        network = Network()

        async def pong(stream: Stream) -> None:
            await stream.receive(5)
            await asyncio.sleep(delay_seconds)
            await stream.send(m.Pong())

        port = await MemoryTransport(network, "far").serve(Address("memory", 0), {PING: pong})
        lanes = Lanes(MemoryTransport(network, "me"))
        await lanes.warm({"far": (Address("memory", port),), "gone": (Address("memory", 99),)}, 1000)
        assert lanes.count("gone", num_agents, 0.0, 1000) == 1
        return lanes.count("far", num_agents, bytes_per_second, num_pieces)

    return clock.run(main())


def test_a_long_way_has_several_lanes_a_short_one_has_one_and_many_agents_share_them() -> None:
    assert lanes_after(LONG_SECONDS / 2, 3) == 1
    assert lanes_after(2 * LONG_SECONDS, 3) == MIN_LANES
    assert lanes_after(2 * LONG_SECONDS, MAX_LANES_OF_ALL // 2) == 2
    assert lanes_after(2 * LONG_SECONDS, 2 * MAX_LANES_OF_ALL) == 1


def test_the_more_is_under_way_the_more_lanes_share_it() -> None:
    assert lanes_after(0.1, 3, 10 * (6.5 * LANE_BYTES)) == 7
    assert lanes_after(0.1, 3, 1e9) == MAX_LANES
    assert lanes_after(0.1, MAX_LANES_OF_ALL // 5, 1e9) == 5
    assert lanes_after(LONG_SECONDS / 2, 3, 1e9) == 1


def test_few_pieces_have_few_lanes() -> None:
    assert lanes_after(0.1, 3, 1e9, num_pieces=3 * PIECES_A_LANE) == 3
    assert lanes_after(0.1, 3, 1e9, num_pieces=1) == 1


def test_where_there_are_many_agents_none_is_dialled_before_it_is_needed() -> None:
    async def main() -> None:
        network, dialled = Network(), list[str]()

        async def pong(stream: Stream) -> None:
            dialled.append(stream.peer)
            await stream.receive(5)
            await stream.send(m.Pong())

        port = await MemoryTransport(network, "far").serve(Address("memory", 0), {PING: pong})
        others = {f"gone{number}": (Address("memory", 99),) for number in range(MAX_WARMED)}
        lanes = Lanes(MemoryTransport(network, "me"))
        await lanes.warm(others | {"far": (Address("memory", port),)}, 1000)
        assert not dialled
        others.popitem()
        await lanes.warm(others | {"far": (Address("memory", port),)}, 1000)
        assert dialled

    clock.run(main())


# ------------------------------------------------------------------------------------------------------ rates
class Link:
    """An agent's link in virtual time: `flows` gives bytes each way to a connection."""

    def __init__(self, directory, caps: Rates = Rates()) -> None:  # noqa: B008 (frozen)
        self.open: dict[int, Crossed] = {}
        self.now, self.delay_seconds = 0.0, 0.0
        self.rates = LinkRates(directory, lambda: dict(self.open), caps)
        self.rates.look(self.now)

    def flows(self, up: float, down: float, seconds: float, inode: int = 1) -> None:
        """So many bytes per second, for so long, over one connection."""
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.now += LOOK_SECONDS
            before = self.open.get(inode, Crossed(0, 0))
            sent, received = round(up * LOOK_SECONDS), round(down * LOOK_SECONDS)
            self.open[inode] = Crossed(before.sent + sent, before.received + received)
            self.rates.look(self.now, self.delay_seconds)

    def step(
        self, up: float, down: float, planned: float, seconds: float, rate: float = 1e6
    ) -> tuple[float, float]:
        """What is known after a reduction that was planned for `planned` seconds, at `rate` each way.

        Without a plan, what crosses is as much more as what is learned of it errs low.
        """
        self.rates.began(self.now)
        more = 1.0 if planned else 1 / ERR_LOW
        self.flows(more * up, more * down, seconds)
        self.rates.ended(planned, seconds, max(planned * rate, LEAST_BYTES))
        return self.rates.known.up_bytes_per_second, self.rates.known.down_bytes_per_second


def test_a_link_is_known_after_the_first_reduction_and_by_an_agent_that_starts_again(tmp_path) -> None:
    assert Link(tmp_path).step(1e6, 2e6, 0.0, 4.0) == pytest.approx((1e6, 2e6))
    assert Link(tmp_path).rates.known.up_bytes_per_second == pytest.approx(1e6)


def test_a_faster_link_is_believed_at_once_and_an_idle_one_forgets_slowly(tmp_path) -> None:
    link = Link(tmp_path)
    link.step(1e6, 1e6, 0.0, 4.0)
    assert link.step(1.05e6, 1e6, 4.0, 4.0)[0] == pytest.approx(1.05e6)
    assert 0.95e6 < link.step(0.2e6, 0.2e6, 4.0, 4.0)[0] < 1.05e6


def test_a_link_at_a_tenth_of_its_rate_is_known_after_one_late_reduction(tmp_path) -> None:
    link = Link(tmp_path)
    link.step(1e6, 1e6, 0.0, 4.0)
    assert link.step(1e5, 1e5, 4.0, 40.0) == pytest.approx((1e5, 1e5))


def test_who_waited_for_a_slow_link_keeps_what_is_known_of_its_own(tmp_path) -> None:
    link = Link(tmp_path)
    link.step(4e6, 4e6, 0.0, 4.0)
    assert link.step(1e6, 1e6, 4.0, 40.0, rate=1e6) == pytest.approx((FORGET * 4e6, FORGET * 4e6))


def test_a_link_that_is_much_faster_than_was_thought_is_known_within_some_steps(tmp_path) -> None:
    link, known = Link(tmp_path), 1e6
    link.step(known, known, 0.0, 4.0)
    for _ in range(8):
        offered, before = min(1e7, USED_SHARE * PROBE_GAIN * known), known
        known, _ = link.step(offered, offered, 4.0, 4.0, rate=USED_SHARE * before)
    assert known >= 0.999e7


def test_what_a_busy_machine_was_slow_at_is_not_its_link(tmp_path) -> None:
    link = Link(tmp_path)
    link.delay_seconds = 2 * STARVED_SECONDS
    assert link.step(1e5, 1e5, 0.0, 4.0) == (0.0, 0.0)  # nothing is known, and nothing wrong
    link.delay_seconds = 0.0
    link.step(1e6, 1e6, 0.0, 4.0)
    link.delay_seconds = 2 * STARVED_SECONDS
    assert link.step(1e5, 1e5, 4.0, 40.0) == pytest.approx((1e6, 1e6))


def test_what_was_held_up_and_came_at_once_is_not_the_links_speed(tmp_path) -> None:
    link = Link(tmp_path)
    link.step(1e6, 1e6, 0.0, 4.0)
    assert link.step(1.4e6, 1.4e6, 4.0, 4.0, rate=1e6) == pytest.approx((1e6, 1e6))


def test_a_reduction_of_few_bytes_teaches_nothing(tmp_path) -> None:
    link = Link(tmp_path)
    link.rates.began(link.now)
    link.flows(1e4, 1e4, 11.0)  # handshakes of a full machine took most of that time
    link.rates.ended(0.0, 11.0, LEAST_BYTES - 1)
    assert link.rates.known == Rates()


def test_a_link_of_which_less_was_asked_than_it_may_carry_stays_unknown(tmp_path) -> None:
    link = Link(tmp_path)
    assert link.step(1e5, 1e5, 10.0, 10.0, rate=1e6) == (0.0, 0.0)
    assert link.step(1e5, 1e5, 4.0, 40.0, rate=1e6) == pytest.approx((1e5, 1e5))


def test_a_reduction_without_traffic_changes_nothing(tmp_path) -> None:
    link = Link(tmp_path)
    link.step(1e6, 1e6, 0.0, 4.0)
    assert link.step(0, 0, 4.0, 40.0) == pytest.approx((1e6, 1e6))


def test_a_connection_that_closes_takes_nothing_back(tmp_path) -> None:
    link = Link(tmp_path)
    link.flows(1e6, 1e6, 2.0, inode=1)
    del link.open[1]
    link.rates.began(link.now)
    link.flows(1e6, 1e6, 2.0, inode=2)
    link.rates.ended(0.0, 2.0, LEAST_BYTES)
    assert link.rates.known.up_bytes_per_second == pytest.approx(ERR_LOW * 1e6)


def test_what_people_want_to_keep_of_their_link_is_not_given_to_the_swarm(tmp_path) -> None:
    link = Link(tmp_path, Rates(up_bytes_per_second=3e5))
    assert link.step(1e6, 1e6, 0.0, 4.0) == pytest.approx((3e5, 1e6))


def test_a_damaged_file_of_rates_counts_as_none(tmp_path) -> None:
    (tmp_path / "links.json").write_text('{"up_bytes_per_second": -1')
    assert LinkRates(tmp_path, dict).known == Rates()


def test_connections_within_this_machine_are_not_its_link() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            near.sendall(b"x" * 1000)
            far.recv(1000, socket.MSG_WAITALL)
            assert not Connections().crossed()


# ------------------------------------------------------------------------------------------------------- caps
def test_a_cap_lets_so_many_bytes_a_second_pass_and_none_lets_all() -> None:
    async def seconds_of(limiter: Limiter) -> float:
        for _ in range(100):
            await limiter.turn(1000)
        return asyncio.get_running_loop().time()

    assert clock.run(seconds_of(Limiter(10_000))) == pytest.approx(10.0, abs=2 * BURST_SECONDS)
    assert clock.run(seconds_of(Limiter())) == 0.0


def test_a_donor_gives_way_to_a_reduction_and_the_update_in_the_making_does_not(tmp_path) -> None:
    block = bytes(3 * m.FRAME_BYTES)
    state, log = OuterState(tmp_path / "state", LAYOUT), UpdateLog(tmp_path / "log", LAYOUT, b"")
    donor = Donor(state, log, b"", lambda *_: block)

    class Asker:
        peer = "asker"

        def __init__(self) -> None:
            self.moments: list[float] = []
            self.asked = False

        async def receive(self, _: float) -> tuple[m.FetchManifest, memoryview]:
            if self.asked:
                raise TransportError("gone")
            self.asked = True
            return m.FetchManifest(), memoryview(b"")

        async def send(self, message: object, bulk: object = b"") -> None:
            self.moments.append(asyncio.get_running_loop().time())

    async def main(reducing: bool) -> float:
        asker = Asker()
        donor.give_way(reducing)
        with pytest.raises(TransportError):
            await donor.serve(asker)  # type: ignore[arg-type]
        return asker.moments[-1]

    assert clock.run(main(False)) < 0.1 * YIELD_SECONDS
    assert clock.run(main(True)) == pytest.approx(3 * YIELD_SECONDS, rel=0.1)


def test_a_metered_donor_gives_no_state_and_no_data(tmp_path) -> None:
    state, log = OuterState(tmp_path / "state", LAYOUT), UpdateLog(tmp_path / "log", LAYOUT, b"")
    donor = Donor(state, log, b"", lambda *_: b"data", metered=True)
    for request in (m.FetchManifest(), m.FetchBlock("a", 0), m.FetchChunk(0)):
        assert isinstance(donor._find(request), m.Missing)


@pytest.mark.parametrize("mbit", ["0", "-3", "nan", "fast"])
def test_a_cap_that_is_none_is_refused(mbit: str) -> None:
    with pytest.raises(UserError, match=r"island\.upload_mbit"):
        own_island([f"island.upload_mbit={mbit}"])


def test_a_metered_relay_is_refused() -> None:
    given = parser().parse_args(["join", "ticket", "--relay", "--metered"])
    with pytest.raises(UserError, match="--metered: a relay is there to send"):
        join_settings(given)
