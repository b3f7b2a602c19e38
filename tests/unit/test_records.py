"""Commit records on their way to whoever lacks them."""

import pytest

import examples
from atoll.swarm.messages import RECORDS_AT_ONCE, RECORDS_BYTES, Records
from atoll.swarm.records import Share, encode


@pytest.mark.parametrize(("num_records", "num_participants"), [(100, 1), (70, 2000), (2, 40_000), (0, 1)])
def test_as_many_records_go_out_at_once_as_a_frame_holds(num_records, num_participants) -> None:
    """A record grows with its participants: 64 of 2,000 each would be over a frame's limit."""
    participants = tuple(
        Share(island=f"{n:016x}", payload=bytes(32), tokens=1 << 20, weight=0.5)
        for n in range(num_participants)
    )
    record = examples.commit_record(participants=participants)
    num_sent = len(Records.first_of([record] * num_records).records)
    assert num_sent == min(num_records, RECORDS_AT_ONCE, max(1, RECORDS_BYTES // len(encode(record))))
