"""A message of another plane ends its line with a sentence, and no state machine ever sees it."""

import socket

import pytest
from worlds.clock import run
from worlds.network import FaultyTransport
from worlds.swarm import HOST, Swarm

import examples
from atoll.agent import outer_step
from atoll.agent.effects import Event
from atoll.agent.frames import frame
from atoll.agent.trainer import SocketTrainer
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR, OPERATOR
from atoll.swarm.records import Term
from atoll.swarm.services import CONTROL, OPERATE
from atoll.swarm.transport import Stream, call

TERM = Term(1, "nonce")
RECORD = examples.commit_record(term=TERM)
PROPOSED = m.Proposed(step=0, tokens=1, inner_steps=1, loss=1.0, compute_seconds=1.0)


@pytest.fixture
def seen(monkeypatch) -> list[Event]:
    """All events that the state machine of an agent has seen."""
    events: list[Event] = []
    step = outer_step.step

    def watched(state, event):
        events.append(event)
        return step(state, event)

    monkeypatch.setattr(outer_step, "step", watched)
    return events


def test_a_coordinator_that_says_what_only_a_trainer_may_loses_the_line_and_no_more(tmp_path, seen) -> None:
    async def main() -> None:
        swarm, num_lines = Swarm(tmp_path, num_outer_steps=1), 0

        async def false_control(stream: Stream) -> None:
            nonlocal num_lines
            num_lines += 1
            await stream.send(m.Welcome(TERM, 0, swarm.genesis_root))
            await stream.send(m.Adopted(0, b"false", b"false"))
            while True:
                await stream.receive(60)

        coordinator = FaultyTransport(swarm.network, COORDINATOR)
        await coordinator.serve(HOST.for_members, {CONTROL: false_control})
        swarm.start("a")
        agent = swarm.agents["a"]
        adopted = m.Adopted(0, swarm.genesis_root, swarm.genesis_root)
        await swarm.until(lambda: num_lines > 2 and adopted in seen, "it dials again, and its trainer adopts")
        assert "an agent takes no such message from its coordinator" in agent.accounts.note
        assert "Adopted" in agent.accounts.note
        assert m.Welcome(TERM, 0, swarm.genesis_root) in seen
        assert {event for event in seen if isinstance(event, m.Adopted)} == {adopted}
        assert not swarm.tasks["a"].done()
        await swarm.kill("a")
        await coordinator.close()

    run(main())


def test_a_trainer_that_says_what_only_a_coordinator_may_ends_its_agent(tmp_path, seen) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1)
        ours, theirs = socket.socketpair()
        swarm.start("a")
        swarm.agents["a"]._trainer = await SocketTrainer.open(ours.detach())
        theirs.sendall(frame(m.Attached()) + frame(m.Committed(RECORD)))
        reason = await swarm.tasks["a"]
        assert reason.startswith("an agent takes no such message from its trainer: ")
        assert "'Committed'" in reason
        assert m.Attached() in seen
        assert not [event for event in seen if isinstance(event, m.Committed)]
        assert swarm.agents["a"].work.log.head == 0
        theirs.close()
        await swarm.kill("a")

    run(main())


@pytest.mark.parametrize("false", [m.Committed(RECORD), PROPOSED], ids=["a coordinator's", "a trainer's"])
def test_an_agent_that_says_what_is_not_its_own_to_say_is_gone_until_it_dials_again(tmp_path, false) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=3)
        await swarm.start_coordinator()
        swarm.start("a", step_seconds=0.1)
        await swarm.until_step(1)
        swarm.agents["a"]._link.send(false)
        await swarm.until_finished("a")
        (left,) = [event.text for event in swarm.events() if event.kind == "left"]
        assert "a coordinator takes no such message from an agent: " in left
        assert type(false).__name__ in left
        await swarm.stop()

    run(main())


def test_what_is_nothing_to_ask_of_a_coordinator_is_refused_with_a_sentence(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1)
        await swarm.start_coordinator()
        people = FaultyTransport(swarm.network, OPERATOR)
        for false in (m.Ping(), m.Finished(0), m.Refused("no")):
            answer = await call(people, (HOST.for_members,), COORDINATOR, OPERATE, false)
            assert isinstance(answer, m.RequestRefused)
            assert "nothing to ask of a coordinator" in answer.reason
            assert type(false).__name__ in answer.reason
        await swarm.stop()

    run(main())
