"""Examples of the structs that many tests need: whole and plain, and changed by name where it matters."""

from typing import Any

from atoll.coordinator.rules import Rules
from atoll.metrics import Metrics
from atoll.status import IslandStatus, RunStatus
from atoll.swarm import messages as m
from atoll.swarm.records import Attempt, CommitRecord, Plan, Term


def hello(**changes: Any) -> m.Hello:
    """Of an island that can be reached, at the start of a run."""
    plain = {
        "session": "",
        "version": m.VERSION,
        "recipe_digest": "",
        "self_test": b"",
        "contributor": "",
        "relay": False,
        "port": 1,
        "addresses": (),
        "head": 0,
        "head_root": b"",
        "term": Term(),
    }
    return m.Hello(**{**plain, **changes})


def rules(**changes: Any) -> Rules:
    """Of a run of one piece: 4 inner steps an outer step, 2 windows of 8 tokens an inner step."""
    plain = {
        "recipe_digest": "",
        "self_test": b"",
        "genesis_root": b"",
        "num_outer_steps": 6,
        "inner_steps": 4,
        "windows_per_step": 2,
        "context_length": 8,
        "stage_ends": (24,),
        "codec": "int8",
        "lr": 0.7,
        "momentum": 0.9,
        "min_participants": 1,
        "num_pieces": 1,
    }
    return Rules(**{**plain, **changes})


def plan(**changes: Any) -> Plan:
    """Of island a, for the first step of a run: 4 inner steps on 8 samples."""
    plain = {
        "term": Term(),
        "step": 0,
        "parent": b"",
        "island": "a",
        "lease": ((0, 8),),
        "stage_starts": (0,),
        "inner_steps": 4,
        "first_inner_step": 0,
    }
    return Plan(**{**plain, **changes})


def attempt(**changes: Any) -> Attempt:
    """The first of a run, of nobody and with no owner."""
    plain = {
        "term": Term(),
        "step": 0,
        "number": 1,
        "parent": b"",
        "codec": "int8",
        "lr": 0.7,
        "momentum": 0.9,
        "participants": (),
        "slices": (),
        "addresses": {},
    }
    return Attempt(**{**plain, **changes})


def commit_record(**changes: Any) -> CommitRecord:
    """The first of a run, which spends nothing; not signed."""
    plain = {
        "term": Term(),
        "branch": 0,
        "step": 0,
        "number": 1,
        "parent": b"",
        "update": b"",
        "next_root": b"",
        "participants": (),
        "leases": (),
        "previous": b"",
    }
    return CommitRecord(**{**plain, **changes})


def island_status(**changes: Any) -> IslandStatus:
    """Of an island that is here and has given nothing yet."""
    plain = {
        "island": "a" * 16,
        "contributor": "",
        "relay": False,
        "present": True,
        "ready": True,
        "evicted": "",
        "addresses": (),
        "note": "",
        "inner_step": 0,
        "planned_inner_steps": 0,
        "metrics": Metrics(),
        "sent_bytes": 0,
        "committed_tokens": 0,
        "committed_tokens_by_source": {},
    }
    return IslandStatus(**{**plain, **changes})


def run_status(**changes: Any) -> RunStatus:
    """Of a run that is hosted and has committed nothing yet."""
    plain = {
        "hosted": True,
        "time": 0.0,
        "run_id": "reef-1",
        "name": "reef",
        "term": 1,
        "finished": False,
        "stall": "",
        "step": 0,
        "num_outer_steps": 9,
        "num_inner_steps": 2,
        "num_islands": 1,
        "num_awaited": 1,
        "root": "",
        "attempt": 0,
        "proposed": (),
        "committed_tokens": 0,
        "ledger": {},
        "sent_bytes": 0,
        "islands": (),
        "evaluation": None,
        "events": (),
    }
    return RunStatus(**{**plain, **changes})
