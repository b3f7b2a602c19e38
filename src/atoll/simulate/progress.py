"""How long the swarm takes to commit while nothing stands in its way: the bound that the simulator prints."""

from typing import TYPE_CHECKING

from atoll.simulate.network import COORDINATOR

if TYPE_CHECKING:
    from atoll.simulate.island import Island
    from atoll.simulate.world import World


class Progress:
    """How long it has been calm without a commit.

    Calm means: there is a coordinator, a majority of the islands, an owner that all of these reach, and
    somebody who has the head. What the others do (dead, frozen, stalled, cut off) must not matter.
    """

    def __init__(self, world: "World") -> None:
        self.worst_gap = 0.0
        self._world = world
        self._calm_since: float | None = None

    def disturbed(self) -> None:
        """A fault began or ended: a new stretch of calm begins, if it is one."""
        self._note_gap()
        self._calm_since = self._world.timeline.now if self._all_is_well() else None

    def committed(self) -> None:
        self.disturbed()  # the new head may be held by nobody who is still there

    @property
    def is_calm(self) -> bool:
        return self._calm_since is not None

    def gap(self) -> float:
        """For how long it has been calm without a commit."""
        return 0.0 if self._calm_since is None else self._world.timeline.now - self._calm_since

    def _note_gap(self) -> None:
        self.worst_gap = max(self.worst_gap, self.gap())

    def _all_is_well(self) -> bool:
        world = self._world
        leader = world.leader
        if leader is None or leader.frozen or leader.doom is not None:
            return False
        members = [island for island in world.islands if island.begun and island.stopped is None]
        well = [island for island in members if self._is_well(island)]
        if 2 * len(well) <= len(members):
            return False
        if leader.protocol.doubt.awaited - {agent.name for agent in [*well, *world.relays]}:
            return False  # a restored backup waits for these, or for its operator to declare them lost
        able = [*well, *(relay for relay in world.relays if self._is_well(relay))]
        return any(self._can_own(agent, well) and self._can_have_head(agent, able) for agent in able)

    def _is_well(self, agent: "Island") -> bool:
        works = agent.up and not agent.frozen and agent.doom is None and agent.stopped is None
        trains = agent.stalled_until <= self._world.timeline.now
        return works and trains and agent.network.both_ways(agent.name, COORDINATOR)

    def _can_own(self, agent: "Island", participants: list["Island"]) -> bool:
        return agent.serving and all(
            agent.network.both_ways(agent.name, other.name) for other in participants
        )

    def _can_have_head(self, agent: "Island", others: list["Island"]) -> bool:
        """Whether an agent can be ready: it has the head, or can fetch it from another that has it."""
        reach = agent.network.both_ways
        return self._has_head(agent) or any(
            self._has_head(other) and other.serving and reach(agent.name, other.name) for other in others
        )

    def _has_head(self, agent: "Island") -> bool:
        head, disk = len(self._world.database.commits), agent.disk
        return disk.reached == head or (disk.reached == head - 1 and disk.committed(head - 1) is not None)
