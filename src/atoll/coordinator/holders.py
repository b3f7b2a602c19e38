"""Which agents hold the assembled update, and whether they are enough to commit it."""

from collections import Counter

from atoll.coordinator.members import Members
from atoll.swarm.messages import Held


class Holders(dict[str, Held]):
    """The `Held` messages of the open attempt, by island.

    All hold the same update. What state it leads to, and what it measures, are functions of it, so whoever
    names another root or measure than the others has computed wrongly, or lies.
    """

    def largest_group(self, members: Members) -> tuple[Held | None, set[str]]:
        """(what the largest group of holders holds, that group); (None, empty) if there is no largest one.

        Each hand has one vote, for what most of its members hold: whoever comes with many identities has no
        more of a say. Of two groups with equal votes the one with more relays counts as the larger.
        """
        groups = self.groups()
        if len(groups) < 2:
            return (self[min(groups[0])], groups[0]) if groups else (None, set())
        votes = self._votes(groups, members)
        relays = {island for island, member in members.items() if member.relay}
        ranked = sorted((votes[at], len(group & relays), at) for at, group in enumerate(groups))
        if ranked[-1][:2] == ranked[-2][:2]:
            return None, set()
        largest = groups[ranked[-1][2]]
        return self[min(largest)], largest

    def groups(self) -> list[set[str]]:
        """The islands, grouped by what they hold; more than one group means that bits differ."""
        groups: dict[tuple[bytes, bytes, bytes], set[str]] = {}
        for island, held in self.items():
            groups.setdefault((held.update, held.next_root, held.measure), set()).add(island)
        return list(groups.values())

    def _votes(self, groups: list[set[str]], members: Members) -> Counter[int]:
        """The number of hands that vote for each group; a hand whose members are divided equally has none."""
        votes: Counter[int] = Counter()
        hands = members.hands(self)
        for hand in set(hands.values()):
            held_by_hand = [sum(hands[island] == hand for island in group) for group in groups]
            most = max(held_by_hand)
            if held_by_hand.count(most) == 1:
                votes[held_by_hand.index(most)] += 1
        return votes


def enough(holders: set[str], participants: set[str], num_ready: int, members: Members) -> bool:
    """Whether a majority of the participants, and of their hands, hold the update; and two agents of any kind
    if two are ready.
    """
    hands = members.hands(participants)
    holding = {hands[island] for island in holders & participants}
    return (
        2 * len(holders & participants) > len(participants)
        and 2 * len(holding) > len(set(hands.values()))
        and len(holders) >= min(2, num_ready)
    )
