"""Which agents hold the assembled update, and whether they are enough to commit it."""

from atoll.coordinator.members import Members
from atoll.swarm.messages import Held


class Holders(dict[str, Held]):
    """The `Held` messages of the open attempt, by island."""

    def largest_group(self, members: Members) -> tuple[Held | None, set[str]]:
        """(what the largest group of holders holds, that group); (None, empty) if there is no largest one.

        Of two groups of equal size the one with more relays counts as the larger.
        """
        relays = {island for island, member in members.items() if member.relay}
        groups = sorted((len(group), len(group & relays), sorted(group)) for group in self.groups())
        if not groups or (len(groups) > 1 and groups[-1][:2] == groups[-2][:2]):
            return None, set()
        largest = groups[-1][2]
        return self[largest[0]], set(largest)

    def groups(self) -> list[set[str]]:
        """The islands, grouped by what they hold; more than one group means that bits differ."""
        groups: dict[tuple[bytes, bytes], set[str]] = {}
        for island, held in self.items():
            groups.setdefault((held.update, held.next_root), set()).add(island)
        return list(groups.values())


def enough(holders: set[str], participants: set[str], num_ready: int) -> bool:
    """Whether a majority of the participants hold the update, and two agents of any kind if two are ready."""
    return 2 * len(holders & participants) > len(participants) and len(holders) >= min(2, num_ready)
