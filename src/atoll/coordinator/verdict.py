"""What becomes of an attempt whose update is held: it is committed, or closed on somebody's account."""

from typing import NamedTuple

from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.holders import enough
from atoll.coordinator.members import Members
from atoll.swarm.messages import Held


class Verdict(NamedTuple):
    """`held` is what to commit; None: close the attempt."""

    held: Held | None
    holders: set[str]  # of it
    is_thin: bool = False  # fewer hold it than usually must
    late: frozenset[str] = frozenset()  # who did not do in time what depended on them
    dissenting: frozenset[str] = frozenset()  # who hold another root than the largest group


def verdict(attempt: OpenAttempt, ready: set[str], members: Members, num_misses: int) -> Verdict:
    """What the holders of an attempt give, once all have answered who are waited for, or the time is over.

    `ready`: the islands whose state is the head. `num_misses`: how often the open step has come to this point
    without a commit: one that was missed once is committed with fewer holders.
    """
    holders = attempt.holders
    held, largest = holders.largest_group(members)
    if len(holders.groups()) > 1:  # the next attempt goes without whoever computes otherwise
        others = holders.keys() - largest if held is not None else set[str]()
        return Verdict(None, largest, dissenting=frozenset(others))
    kept = members.any_reachable(largest) and attempt.is_held_by_others(largest, ready, members)
    many = enough(largest, attempt.participants, len(ready), members)
    if held is not None and kept and (many or num_misses):
        return Verdict(held, largest, is_thin=not many)
    awaited = attempt.awaited_holders(ready, members)
    late = awaited if kept or not largest else largest  # or what nobody could get of them
    return Verdict(None, largest, late=frozenset(late))
