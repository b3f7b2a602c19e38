"""What a member says that it knows is believed only with the run's signature under it."""

import msgspec
from worlds.clock import run
from worlds.hostile import Hostile, honest, steps_in
from worlds.swarm import Swarm

import examples
from atoll.swarm import messages as m
from atoll.swarm.records import Rewind, Term


def false_record(swarm: Swarm) -> dict:
    record = examples.commit_record(step=10**6 - 1, next_root=b"x" * 32, signature=b"s" * 64)
    return {"head": 10**6, "head_root": b"x" * 32, "newest_record": record}


def anothers_record(swarm: Swarm) -> dict:
    """A true record of this run, which is not of the step that is claimed."""
    return {"head": 10**6, "head_root": b"x" * 32, "newest_record": swarm.store.commits()[-1]}


CLAIMS = {
    "commits": lambda swarm: {"head": 10**9, "head_root": b"x" * 32},
    "commits with a false record": false_record,
    "commits with a record of another step": anothers_record,
    "rewinds": lambda swarm: {"num_rewinds": 7},
    "rewinds with a false one": lambda swarm: {
        "num_rewinds": 1,
        "newest_rewind": Rewind(branch=1, step=0, root=b"", previous=b"", signature=b"s" * 64),
    },
    "a higher term": lambda swarm: {"term": Term(1000, "mine")},
    "a rival of the term": lambda swarm: {"term": Term(swarm.coordinator.protocol.term.counter, "mine")},
    "a higher term with this one's signature": lambda swarm: {
        "term": msgspec.structs.replace(swarm.coordinator.protocol.term, counter=1000)
    },
}


def test_a_claim_without_proof_ends_with_its_line_and_stops_nobody(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "ab")
        term = swarm.coordinator.protocol.term
        calm = await steps_in(swarm, 6)
        liar = Hostile(swarm, "x")
        for claim in CLAIMS.values():
            await liar.enter(**claim(swarm))
        assert await steps_in(swarm, 6) >= calm - 1
        assert swarm.coordinator.protocol.term == term
        assert not swarm.coordinator.protocol.doubt.is_open
        refused = [message.reason for message in liar.heard if isinstance(message, m.Refused)]
        assert len(refused) == len(CLAIMS)
        assert all("shows no proof of" in reason for reason in refused)
        await liar.leave()
        await swarm.stop()

    run(main())


def test_a_term_that_the_run_has_signed_is_outranked(tmp_path) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=1000)
        await honest(swarm, "ab")
        signed = swarm.coordinator._signed(Term(50, "another reign"))
        witness = Hostile(swarm, "x")
        await witness.enter(term=signed)
        await swarm.until(lambda: swarm.coordinator.protocol.term.counter == 51, "a higher term")
        await swarm.until_step(swarm.head + 2)
        await witness.leave()
        await swarm.stop()

    run(main())
