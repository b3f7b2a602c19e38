"""The simulator's database and the real store behave alike, whatever two leaders do with them."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

import examples
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.store import Deposed, Store
from atoll.simulate.database import Conflict, Database
from atoll.swarm import records as r


def plan(step: int, island: str) -> r.Plan:
    return examples.plan(step=step, island=island, lease=((0, 2),), inner_steps=1)


def attempt(step: int, number: int) -> r.Attempt:
    return examples.attempt(step=step, number=number, codec="fp32", lr=1.0, momentum=0.0)


def commit(step: int) -> r.CommitRecord:
    return examples.commit_record(step=step)


steps = st.integers(0, 2)
plans = st.builds(plan, steps, st.sampled_from("ab"))
attempts = st.builds(attempt, steps, st.integers(1, 3))
commits = st.builds(commit, steps)
asked = st.lists(
    st.tuples(st.integers(0, 1), st.lists(st.one_of(plans, attempts, commits), max_size=2)), max_size=12
)


def outcome(action: Any, *arguments: object) -> str:
    """How a call ends, by a name that model and store share."""
    try:
        action(*arguments)
    except Deposed:
        return "deposed"
    except (Conflict, IntegrityError):
        return "conflict"
    return "done"


# A commit deletes the attempts of its step, so that one can be inserted again.
AGAIN = [(0, [attempt(0, 1), commit(0)]), (0, [commit(1), attempt(0, 1)])]


@settings(max_examples=40)
@example(AGAIN, [])
@given(asked, st.lists(st.integers(0, 1), max_size=2))
def test_two_leaders_over_one_database(asked: list[tuple[int, list[Any]]], reigns: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model, stores, held = Database(), [], [r.Term(), r.Term()]
        for _ in range(2):
            stores.append(Store(sqlite_url(Path(directory))))
            stores[-1].claim(b"run")
        for leader in [0, *reigns]:
            held[leader] = model.begin_term()
            stores[leader].begin_term()
        for leader, records in asked:
            if any(isinstance(x, r.CommitRecord) and x.step > len(model.commits) for x in records):
                continue  # a coordinator commits only its head; the store does not check that
            assert outcome(model.append, held[leader], records) == outcome(stores[leader].append, records)
            for step in range(3):
                mine, theirs = model.open_step(step), stores[0].open_step(step)
                assert sorted(p.island for p in mine.plans) == sorted(p.island for p in theirs.plans)
                assert mine[1:] == theirs[1:]
            assert model.commits == stores[0].commits()
        for store in stores:
            store.close()
