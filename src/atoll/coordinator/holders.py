"""Who holds the assembled update, and whether that is enough to commit it."""

from atoll.coordinator.members import Members
from atoll.swarm.messages import Held


class Holders(dict[str, Held]):
    """`Held` of the open attempt, by island."""

    def best(self, members: Members) -> tuple[Held | None, set[str]]:
        """The next root that most hold, and who does; a relay breaks a tie, and with none nothing is best."""
        relays = {island for island, member in members.items() if member.relay}
        ranked = sorted(
            ((len(group), len(group & relays), group) for group in self.groups()), key=lambda g: g[:2]
        )
        if not ranked or (len(ranked) > 1 and ranked[-1][:2] == ranked[-2][:2]):
            return None, set()
        best = ranked[-1][2]
        return self[min(best)], best

    def groups(self) -> list[set[str]]:
        """Islands that hold the same; more than one group means that bits differ."""
        groups: dict[tuple[bytes, bytes], set[str]] = {}
        for island, held in self.items():
            groups.setdefault((held.update, held.next_root), set()).add(island)
        return list(groups.values())


def enough(holders: set[str], participants: set[str], num_ready: int) -> bool:
    """A majority of the participants, and two holders of any kind where two agents are ready (PROTOCOL 3)."""
    return 2 * len(holders & participants) > len(participants) and len(holders) >= min(2, num_ready)
