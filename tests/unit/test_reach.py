"""Where an agent is reached: what it gives, what is seen, and what others find out for the coordinator."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

import examples
from atoll.agent.server import Agent
from atoll.coordinator import reach
from atoll.coordinator.effects import Reached
from atoll.coordinator.reach import Reach
from atoll.events import Answered, Event, Unreachable
from atoll.swarm import messages as m
from atoll.swarm.address import Address, Addresses, HostPorts
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.services import PING
from atoll.swarm.transport import Stream

HOST = HostPorts("203.0.113.5", 7700, 7701, 7702)
ELSEWHERE = "203.0.113.20"  # the host that a member is seen at
GIVEN = Address("198.51.100.7", 7800)


class Case:
    """A coordinator's view of one agent that listens on port 5."""

    def __init__(self, monkeypatch, *, answers_at: Addresses = (), on_this_machine: bool = False) -> None:
        monkeypatch.setattr(reach, "is_this_machine", lambda host: on_this_machine and host != ELSEWHERE)
        monkeypatch.setattr(reach, "REACH_AGAIN_SECONDS", 0.01)
        monkeypatch.setattr(reach, "LOOK_SECONDS", 0.01)
        self.events: list[Event] = []
        self.network = Network()
        self.answers_at = answers_at
        self.found: list[Addresses] = []
        self.asked: list[tuple[str, m.TryToReach]] = []
        transport = MemoryTransport(self.network, "coordinator")
        self.reach = Reach(
            transport, self.events.append, lambda *asked: self.asked.append(asked), self._reached
        )
        self.reach.hosts, self.reach.scope = (HOST,), "internet"

    def _tell(self, witness: str, asked: m.TryToReach) -> None:
        self.asked.append((witness, asked))

    def _reached(self, reached: Reached) -> None:
        self.found.append(reached.addresses)

    def follow(
        self, seen: str, given: Addresses = (), also: Callable[["Case"], Awaitable[None]] | None = None
    ) -> None:
        """Follow the agent, seen at a host, until it ends or `also` has."""

        async def main() -> None:
            for address in self.answers_at:
                await MemoryTransport(self.network, "a").serve(address, {PING: _pong})
            following = asyncio.create_task(
                self.reach.follow("a", examples.hello(port=5, addresses=given), seen)
            )
            others = asyncio.create_task(also(self)) if also else asyncio.create_task(asyncio.sleep(0.05))
            await asyncio.wait([others], timeout=5)
            await others
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

        asyncio.run(main())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - whatever it is that changes it
                await asyncio.sleep(0.001)

    async def answer(self, reason: str, number: int = 0) -> None:
        """The member that was asked says what came of it."""
        await self.until(lambda: len(self.asked) > number)
        witness, asked = self.asked[number]
        self.reach.heard(witness, m.Tried(asked.island, reason))


async def _pong(stream: Stream[m.Ping]) -> None:
    await stream.receive(1.0)
    await stream.send(m.Pong())


@pytest.fixture
def case(monkeypatch):
    return lambda **more: Case(monkeypatch, **more)


def test_an_agent_is_reached_at_the_host_that_it_is_seen_at(case) -> None:
    one = case(answers_at=(Address(ELSEWHERE, 5),))
    one.follow(ELSEWHERE)
    assert one.found == [(Address(ELSEWHERE, 5),)]


def test_of_what_is_given_and_what_is_seen_those_that_answer_are_kept(case) -> None:
    one = case(answers_at=(GIVEN,))
    one.follow(ELSEWHERE, (GIVEN, Address("198.51.100.8", 1)))
    assert one.found == [(GIVEN,)]


def test_an_agent_that_does_not_answer_is_named_once_with_the_reason(case) -> None:
    one = case()
    one.follow(ELSEWHERE)
    (event,) = one.events
    assert isinstance(event, Unreachable)
    assert event.address == f"{ELSEWHERE}:5"
    assert "cannot be reached" in event.reason
    assert one.found == []


def test_an_address_of_the_hosts_own_network_misleads_nobody_outside(case) -> None:
    inside = Address("192.168.1.6", 5)
    one = case(answers_at=(inside,))
    one.follow(inside.host)
    assert one.found == []
    assert "--advertise" in one.events[0].text
    at_home = case(answers_at=(inside,))
    at_home.reach.scope = "network"
    at_home.follow(inside.host)
    assert at_home.found == [(inside,)]


def test_what_an_agent_of_this_machine_gives_is_believed_before_anybody_has_tried(case) -> None:
    one = case(on_this_machine=True)
    one.follow("127.0.0.1", (GIVEN,))
    assert one.found == [(GIVEN,)]


def test_a_member_from_outside_is_asked_to_try_an_agent_of_this_machine(case) -> None:
    one = case(on_this_machine=True)

    async def others(case: Case) -> None:
        await case.until(lambda: bool(case.found))
        case.reach.entered("ada", ELSEWHERE)
        await case.answer("")
        await case.until(lambda: len(case.found) == 2)

    one.follow("127.0.0.1", (GIVEN,), others)
    assert one.asked == [("ada", m.TryToReach("a", (GIVEN,)))]
    answered = [event.address for event in one.events if isinstance(event, Answered)]
    assert answered == [str(HOST.for_members), str(GIVEN)]


def test_a_failure_of_a_try_is_told_and_costs_only_an_agent_that_gave_no_address(case) -> None:
    for given, expected in (((GIVEN,), [(GIVEN,)]), ((), [(Address("203.0.113.5", 5),), ()])):
        one = case(on_this_machine=True, answers_at=(Address("203.0.113.5", 5),))

        async def others(case: Case, expected: list[Addresses] = expected) -> None:
            case.reach.entered("ada", ELSEWHERE)
            await case.answer("nobody answers")
            await case.until(lambda: len(case.found) >= len(expected) and len(case.asked) > 1)

        one.follow("203.0.113.5", given, others)
        assert one.found[: len(expected)] == expected
        (event,) = [e for e in one.events if isinstance(e, Unreachable)]
        assert (event.by, event.reason) == ("ada", "nobody answers")


def test_enrolment_from_outside_shows_that_its_port_is_open(case) -> None:
    one = case()
    one.reach.enrolled("ada", "192.168.1.6")
    assert one.events == []
    one.reach.enrolled("ada", ELSEWHERE)
    one.reach.enrolled("bob", ELSEWHERE)
    (event,) = one.events
    assert (event.address, event.by) == (str(HOST.for_strangers), "ada")


def test_an_answer_that_nobody_has_asked_for_changes_nothing(case) -> None:
    one = case()
    one.reach.heard("ada", m.Tried("a", ""))
    assert one.found == []


def test_only_the_addresses_of_this_machine_are_its_own() -> None:
    assert reach.is_this_machine("127.0.0.1")
    assert not reach.is_this_machine("192.0.2.1")
    assert not reach.is_this_machine("memory")


# ------------------------------------------------------------------------------------ whoever is asked to try
@pytest.mark.parametrize(
    ("reasons", "told"), [([""], ""), (["refused", ""], ""), (["refused", "no route"], "no route")]
)
def test_a_member_tries_again_before_it_says_that_an_agent_cannot_be_reached(
    monkeypatch, reasons, told
) -> None:
    monkeypatch.setattr("atoll.agent.server.REDIAL_SECONDS", 0.01)
    sent: list[m.Tried] = []

    async def main() -> None:
        left = iter(reasons)
        agent = SimpleNamespace(_link=SimpleNamespace(send=sent.append))

        async def why(asked: m.TryToReach) -> str:
            return next(left)

        agent._why_not_reached = why
        await Agent._try_to_reach(agent, m.TryToReach("a" * 16, (Address("203.0.113.5", 7702),)))
        assert not list(left)

    asyncio.run(main())
    assert [tried.reason for tried in sent] == [told]
