"""What people hear of a swarm: why it waits or stalls, in seconds, at every member and in the status."""

import asyncio

from worlds.clock import run
from worlds.network import FaultyNetwork
from worlds.swarm import Swarm

from atoll.events import Resumed, Stalled
from atoll.events.log import EventReader
from atoll.swarm import messages as m
from atoll.terminal.news import Kind, situation


class Listener:
    """The newest sign of life that each trainer has heard."""

    def __init__(self, network: FaultyNetwork) -> None:
        self.pulses: dict[str, m.Pulse] = {}
        network.watches.append(self._hear)

    def _hear(self, sender: str, receiver: str, message: object) -> None:
        if isinstance(message, m.Pulse):
            self.pulses[sender] = message

    def kind(self, island: str) -> Kind | None:
        """Where the run is, as that island's terminal says."""
        pulse = self.pulses.get(island)
        return situation(pulse.lost, pulse.note, pulse.overview).kind if pulse else None


def test_no_step_begins_before_as_many_islands_are_ready_as_the_operator_waits_for(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4, num_awaited=2)
        heard = Listener(swarm.network)
        await swarm.start_coordinator()
        swarm.start("r", relay=True)
        swarm.start("a", step_seconds=0.1)
        await swarm.until(lambda: heard.kind("a") is Kind.AWAITING, "a says that it waits for another")
        await asyncio.sleep(30)
        assert heard.kind("a") is Kind.AWAITING
        assert not swarm.coordinator.protocol.plans, "nobody trains alone"
        status = swarm.board.status()
        assert (status.num_islands, status.num_awaited, status.stall) == (1, 2, "")
        swarm.start("b", step_seconds=0.1)
        await swarm.until_finished("a", "b")
        assert all(len(record.participants) == 2 for record in swarm.store.commits())
        await swarm.stop()

    run(main())


def test_a_swarm_of_islands_that_only_dial_out_says_that_it_stalls_why_and_when_it_goes_on(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=30)
        heard = Listener(swarm.network)
        await swarm.start_coordinator()
        genesis = (tmp_path / "genesis",)
        for name in ("a", "b"):
            swarm.start(name, step_seconds=0.1, dial_only=True, checkpoint_dirs=genesis)
        await swarm.until(lambda: len(swarm.coordinator.protocol.proposals) == 2, "both have proposed")
        await asyncio.sleep(2.5)
        reason = swarm.board.status().stall
        assert "no agent can be reached by the others" in reason
        assert "atoll join TICKET --relay" in reason
        assert {heard.kind(name) for name in ("a", "b")} == {Kind.STALLED}
        await asyncio.sleep(60)
        swarm.start("r", relay=True)
        await swarm.until_step(3)
        await asyncio.sleep(2.5)
        assert swarm.board.status().stall == ""
        assert heard.kind("a") is Kind.WORKING
        told = [
            event for event in EventReader(swarm.events_path).read() if event.kind in ("stalled", "resumed")
        ]
        assert [type(event) for event in told] == [Stalled, Resumed], "a stall is told once, not at each try"
        await swarm.stop()

    run(main())


def test_a_relay_that_the_islands_cannot_reach_is_a_stall_as_well(tmp_path) -> None:
    """The coordinator reaches its own relay, on the same machine; the islands do not: all attempts fail."""

    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=30)
        await swarm.start_coordinator()
        swarm.start("r", relay=True)
        for name in ("a", "b"):
            swarm.start(name, step_seconds=0.1, dial_only=True, checkpoint_dirs=(tmp_path / "genesis",))
            swarm.network.cut_edge("r", name)
        await swarm.until(lambda: bool(swarm.board.status().stall), "the stall is seen")
        reason = swarm.board.status().stall
        assert "step 0 fail" in reason
        assert "r (r)" in reason, "it names who cannot exchange"
        await asyncio.sleep(60)
        assert swarm.board.status().stall == reason, "one stall keeps one reason"
        await swarm.stop()

    run(main())


def test_members_without_a_donor_hear_that_nobody_can_give_them_the_state(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=4)
        await swarm.start_coordinator()
        swarm.start("a", step_seconds=0.1, checkpoint_dirs=())
        await swarm.until(lambda: bool(swarm.board.status().stall), "the stall is seen")
        assert "holds state 0 yet, so that a (a) cannot take it" in swarm.board.status().stall
        await swarm.stop()

    run(main())


def test_an_island_that_waits_says_within_two_seconds_that_the_coordinator_is_lost_and_back(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=60)
        heard = Listener(swarm.network)
        await swarm.start_coordinator()
        for name in ("r", "a"):
            swarm.start(name, relay=name == "r", step_seconds=0.1)
        await swarm.until_step(2)
        await asyncio.sleep(4)
        pulse = heard.pulses["a"]
        assert pulse.overview is not None
        assert pulse.overview.num_islands == 1
        assert pulse.overview.tokens_per_second > 0
        await swarm.kill_coordinator()
        await asyncio.sleep(2)
        assert heard.kind("a") is Kind.LOST
        await swarm.start_coordinator()
        await asyncio.sleep(4)
        assert heard.kind("a") is Kind.WORKING
        await swarm.stop()

    run(main())
