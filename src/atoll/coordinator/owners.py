"""Which agents own slices of the flat space in an attempt, and how large their slices are."""

from atoll.coordinator.members import Members
from atoll.coordinator.standing import Standing
from atoll.swarm.records import Slice


def choose_owners(participants: list[str], members: Members, step: int, standing: Standing) -> list[str]:
    """Who may own in an attempt at `step`, sorted; empty if nobody can.

    Participants come first, then relays, then other ready agents: the first of these groups with any that the
    others can reach, and that has not lost ownership.
    """
    others = [member for member in members.ready(step) if member.island not in participants]
    relays = [member.island for member in others if member.relay]
    for group in (sorted(participants), relays, [member.island for member in others]):
        if able := [i for i in group if members[i].addresses and i not in standing.ownerless_steps]:
            return able
    return []


def equal_slices(owners: list[str], num_pieces: int) -> tuple[Slice, ...]:
    """Contiguous slices that differ by one piece at most; none is empty, so some owners may get none."""
    owners = owners[:num_pieces]
    bounds = [num_pieces * k // len(owners) for k in range(len(owners) + 1)]
    return tuple(
        Slice(owner, first, end - first)
        for owner, first, end in zip(owners, bounds, bounds[1:], strict=False)
    )
