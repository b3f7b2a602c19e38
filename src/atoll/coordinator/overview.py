"""How the run is, for the terminals of all members."""

from atoll.coordinator.protocol import Coordinator
from atoll.status import Overview

FRESH_SECONDS = 0.5  # so long one overview serves everybody who asks: they ask once a second each


class OverviewBoard:
    """Gives the overview of a run, and does not make it anew for each of many members."""

    def __init__(self, protocol: Coordinator) -> None:
        self._protocol = protocol
        self._newest = overview(protocol)
        self._until = 0.0

    def at(self, now: float) -> Overview:
        """An overview that is at most FRESH_SECONDS old."""
        if now >= self._until:
            self._newest, self._until = overview(self._protocol), now + FRESH_SECONDS
        return self._newest


def overview(protocol: Coordinator) -> Overview:
    """The overview as it stands now."""
    islands = [member for member in protocol.members.values() if member.present and not member.relay]
    start, rules = protocol.start, protocol.rules
    return Overview(
        step=protocol.head,
        num_outer_steps=rules.num_outer_steps,
        num_islands=len(islands) if start.has_been else start.num_ready(protocol.head),
        num_awaited=rules.min_participants if start.has_been else start.num_awaited,
        num_proposed=len(protocol.proposals),
        tokens_per_second=sum(member.beat.metrics.tokens_per_second for member in islands if member.beat),
        stall=protocol.stall.reason,
    )
