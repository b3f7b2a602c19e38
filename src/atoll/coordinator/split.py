"""How large each owner's slice should be, by what the links carry: the least time that they leave."""

from collections.abc import Mapping, Sequence

import msgspec

from atoll.swarm.records import Slice

NUM_BISECTIONS = 50
NEGLIGIBLE_SHARE = 1e-6  # what a bisection leaves of nothing


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's place in a reduction."""

    bytes_per_second: float  # of the slower direction: an agent receives as much as it sends
    participant: bool
    may_own: bool


class Split(msgspec.Struct, frozen=True):
    """Shares of the space, and how long the slowest link then needs for one byte of a payload."""

    shares: dict[str, float]  # of each agent that owns; they add up to 1
    seconds_per_byte: float


class LinkPlan(msgspec.Struct, frozen=True):
    """Who reduces what, and how long that should take."""

    slices: tuple[Slice, ...]
    seconds: float  # 0: nothing is known of the links


def solve(sites: Mapping[str, Site]) -> Split | None:
    """The split of the least time; None if nobody may own.

    An agent that owns the share x of S bytes sends, and receives, S (c (1 - x) + x (n - c)): its payload to
    the other owners if it is a participant (c = 1, else 0), and what it reduced to the n participants.
    """
    if not any(site.may_own for site in sites.values()):
        return None
    slowest = min(site.bytes_per_second for site in sites.values())
    low, high = 0.0, (1 + len(sites)) / slowest  # in which even the slowest could own everything
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        room = _room(sites, middle)
        low, high = (low, middle) if room is not None and sum(room.values()) >= 1 else (middle, high)
    room = _room(sites, high) or {}
    room = {island: share for island, share in room.items() if share > NEGLIGIBLE_SHARE}
    total = sum(room.values())
    return Split({island: share / total for island, share in room.items()}, high)


def _room(sites: Mapping[str, Site], seconds_per_byte: float) -> dict[str, float] | None:
    """The share that each could own in that time, perhaps over 1; None if one could not even take part."""
    num_participants = sum(site.participant for site in sites.values())
    room: dict[str, float] = {}
    for island, site in sites.items():
        own = int(site.participant)
        carried = site.bytes_per_second * seconds_per_byte  # of one payload
        per_share = num_participants - 2 * own  # what owning all of it adds
        if per_share < 0:  # alone: it owns what it has, and nothing travels
            room[island] = float(site.may_own)
        elif carried < own:
            return None
        elif site.may_own:
            room[island] = (carried - own) / per_share if per_share else 1.0
    return room


def slices(shares: Mapping[str, float], num_pieces: int) -> tuple[Slice, ...]:
    """Contiguous slices of these shares, to the piece; whose share is less than half a piece has none.

    Equal shares make slices that differ by one piece at most.
    """
    found: list[Slice] = []
    first, given = 0, 0.0
    for owner, share in shares.items():
        given += share
        end = min(num_pieces, round(given * num_pieces))
        if end > first:
            found.append(Slice(owner, first, end - first))
        first = max(first, end)
    if first < num_pieces:  # what rounding has left
        last = found.pop() if found else Slice(next(iter(shares)), 0, 0)
        found.append(Slice(last.owner, last.first_piece, num_pieces - last.first_piece))
    return tuple(found)


def equal(owners: Sequence[str]) -> dict[str, float]:
    """The same share for all."""
    return dict.fromkeys(owners, 1 / len(owners))
