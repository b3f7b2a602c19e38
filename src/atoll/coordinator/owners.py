"""Which agents may own slices of the flat space in an attempt."""

from collections.abc import Iterable

from atoll.coordinator.members import Members
from atoll.coordinator.standing import Standing


def owner_groups(
    participants: list[str], members: Members, step: int, standing: Standing
) -> tuple[list[str], list[str], list[str]]:
    """(participants, relays, other ready agents) that may own in an attempt at `step`, each sorted.

    These are the ones that the others can reach, and that have not lost ownership.
    """
    others = [member for member in members.ready(step) if member.island not in participants]

    def able(islands: Iterable[str]) -> list[str]:
        return [i for i in islands if members[i].addresses and i not in standing.ownerless_steps]

    relays = able(member.island for member in others if member.relay)
    return able(sorted(participants)), relays, able(m.island for m in others if not m.relay)
