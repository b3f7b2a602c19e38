"""What a run has decided, as whoever holds its certificate can check it: a chain of signed records."""

from collections.abc import Sequence

from atoll.swarm.identity import verify_record
from atoll.swarm.records import CommitRecord, Rewind, is_valid_after


def objection(
    record: CommitRecord, before: Sequence[CommitRecord], rewinds: Sequence[Rewind], record_key: bytes
) -> str:
    """Why a record cannot be the next one after those `before` it; "" if it can.

    `rewinds`: all that are known, in order. `record_key`: the public half of the key that signs records.
    """
    if record.step != len(before):
        return f"it is for step {record.step}, not {len(before)}"
    if before and record.previous != before[-1].digest():
        return "it does not continue the chain of records"
    if not is_valid_after(record, rewinds):
        return "it is of a branch that was abandoned, or that this island does not know"
    if not verify_record(record_key, record.unsigned(), record.signature):
        return "its signature is not the run's"
    return ""
