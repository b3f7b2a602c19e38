"""How long the swarm takes to commit while nothing stands in its way: the bound that the simulator prints."""

from typing import TYPE_CHECKING

from atoll.swarm.identity import COORDINATOR

if TYPE_CHECKING:
    from atoll.simulate.site import Site
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
        """A fault began or ended, or a step is committed: a new stretch of calm begins, if it is one."""
        self.worst_gap = max(self.worst_gap, self.gap())
        self._calm_since = self._world.loop.now if self._all_is_well() else None

    def look(self) -> None:
        """Time has passed: a process may have ended or begun meanwhile."""
        if (self._calm_since is not None) != self._all_is_well():
            self.disturbed()

    @property
    def is_calm(self) -> bool:
        return self._calm_since is not None

    def gap(self) -> float:
        """For how long it has been calm without a commit."""
        return 0.0 if self._calm_since is None else self._world.loop.now - self._calm_since

    def left_behind(self) -> list[str]:
        """Who works at the end, could have fetched the last state, and has not."""
        world = self._world
        leader = world.hosts.leader
        if leader is None or leader.server is None or leader.server.protocol.doubt.is_open:
            return []  # perhaps for good: an operator says who does not come back
        well = [site for site in world.sites.values() if self.is_well(site)]
        behind = [site for site in well if not self._world.is_over(site)]
        reach = world.network.is_open_both_ways
        return [
            f"{site.name} is not at the last state, and {other.name} could have given it"
            for site in behind
            for other in well
            if other not in behind and not other.dial_only and reach(site.name, other.name)
        ]

    def _all_is_well(self) -> bool:
        world = self._world
        host = world.hosts.leader
        if host is None or host.server is None or host.process.frozen or host.process.doom is not None:
            return False
        if world.hosts.database_full:
            return False
        members = [site for site in world.islands if site.begun and site.stopped is None]
        well = [site for site in members if self.is_well(site)]
        if 2 * len(well) <= len(members):
            return False
        if host.server.protocol.doubt.awaited - {site.name for site in [*well, *world.relays]}:
            return False  # a restored backup waits for these, or for its operator to declare them lost
        able = [*well, *(relay for relay in world.relays if self.is_well(relay))]
        return any(self._can_own(site, well) and self._can_have_head(site, able) for site in able)

    def is_well(self, site: "Site") -> bool:
        """Whether a machine works, and reaches the host."""
        now = self._world.loop.now
        works = (
            site.up and not site.frozen and not site.doomed and site.stopped is None and not site.disk.full
        )
        trains = max(site.stalled_until, site.disk_slow_until) <= now
        return works and trains and self._world.network.is_open_both_ways(site.name, COORDINATOR)

    def _can_own(self, site: "Site", participants: list["Site"]) -> bool:
        reach = self._world.network.is_open_both_ways
        return not site.dial_only and all(reach(site.name, other.name) for other in participants)

    def _can_have_head(self, site: "Site", others: list["Site"]) -> bool:
        """Whether an agent can be ready: it has the head, or can fetch it from another that has it."""
        reach = self._world.network.is_open_both_ways
        return self._has_head(site) or any(
            self._has_head(other) and not other.dial_only and reach(site.name, other.name) for other in others
        )

    def _has_head(self, site: "Site") -> bool:
        return self._world.invariants.can_reach_head(site)
