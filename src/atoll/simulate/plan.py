"""What a swarm would do that is not there yet: its outer step by parts, from links and measured constants.

The reduction is planned by the coordinator's own code, so what is told here is what an attempt would say.
"""

from collections.abc import Sequence

import msgspec

from atoll.coordinator.links import USED_SHARE
from atoll.coordinator.split import Site, solve
from atoll.recipe import Outer
from atoll.simulate.sizes import Sizes, sizes

MBIT_BYTES = 1e6 / 8
DAY_SECONDS = 86_400
# Of a link's rate, what pieces get where packets have 1500 bytes: the rest is headers and acknowledgements.
PIECES_SHARE = 0.95
FASTER = 2.0  # times its rate: the improvement of one link that is looked at


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What one core and the disk of an island's machine do; by default what `measure` gives."""

    encode_seconds: float  # of one parameter, like all but the last
    add_seconds: float  # decoding one participant's copy and adding it
    apply_seconds: float  # applying an update and hashing the result
    copy_seconds: float  # fp32, within memory
    disk_bytes_per_second: float  # written and synced


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A swarm and its run."""

    num_parameters: int
    links: tuple[tuple[float, float], ...]  # Mbit/s up and down, of each island
    relays: tuple[tuple[float, float], ...] = ()
    round_trip_seconds: float = 0.1
    inner_steps: int
    inner_step_seconds: float
    codec: str = "int8"
    checkpoint_every: int = Outer(inner_steps=1).checkpoint_every


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """One outer step of a swarm, and what it takes."""

    train_seconds: float
    encode_seconds: float
    reduce_seconds: float
    hold_seconds: float
    adopt_seconds: float
    relays_own: float  # share of the space that relays reduce
    gb_sent_a_day: tuple[float, ...]  # by each island, beside what joiners are given
    disk_gb: float  # of an island, at the worst moment
    memory_gb: float  # that is mapped, and best kept in memory; the trainer's is not in it
    slowest: int  # number of the island whose link should be improved first
    gained_seconds: float  # of the reduction, if that link were FASTER times as fast

    @property
    def outer_step_seconds(self) -> float:
        rest = self.encode_seconds + self.reduce_seconds + self.hold_seconds + self.adopt_seconds
        return self.train_seconds + rest

    @property
    def reduce_utilisation(self) -> float:
        """As INTELLECT-1 counted it: only the all-reduce is lost."""
        return self.train_seconds / (self.train_seconds + self.reduce_seconds)

    @property
    def utilisation(self) -> float:
        """End to end: everything but inner steps is lost."""
        return self.train_seconds / self.outer_step_seconds


def outlook(case: Case, machine: Machine) -> Outlook:
    """What one outer step of this swarm takes on such machines."""
    count, taken = case.num_parameters, _sizes(case)
    num_bytes = taken.payload
    seconds, shares = reduction(case)
    busiest = max(shares.values(), default=0.0)
    owner_seconds = busiest * count * (len(case.links) * machine.add_seconds + machine.encode_seconds)
    improved = [_improved(case, number) for number in range(len(case.links))]
    best = min(range(len(improved)), key=improved.__getitem__)
    train_seconds = case.inner_steps * case.inner_step_seconds
    found = Outlook(
        train_seconds=train_seconds,
        encode_seconds=count * machine.encode_seconds,
        reduce_seconds=max(seconds, owner_seconds),
        hold_seconds=count * machine.apply_seconds
        + num_bytes / machine.disk_bytes_per_second
        + 0.5 * case.round_trip_seconds,
        adopt_seconds=count * (machine.apply_seconds + machine.copy_seconds),
        relays_own=sum(share for site, share in shares.items() if site.startswith("r")),
        gb_sent_a_day=(),
        disk_gb=taken.disk / 1e9,
        memory_gb=taken.mapped / 1e9,
        slowest=best,
        gained_seconds=seconds - improved[best],
    )
    steps_a_day = DAY_SECONDS / found.outer_step_seconds
    sent = [
        num_bytes * (1 - share + share * (len(case.links) - 1)) * steps_a_day / 1e9
        for share in (shares.get(f"i{number}", 0.0) for number in range(len(case.links)))
    ]
    return msgspec.structs.replace(found, gb_sent_a_day=tuple(sent))


def reduction(case: Case) -> tuple[float, dict[str, float]]:
    """Seconds from an attempt's opening until all have the update, and each site's share of the space.

    Islands are i0, i1, ...; relays r0, r1, ... Half a round trip brings the attempt, and half the last piece.
    """
    sites = {f"i{n}": _site(link, participant=True) for n, link in enumerate(case.links)}
    sites |= {f"r{n}": _site(link, participant=False) for n, link in enumerate(case.relays)}
    split = solve(sites)
    assert split is not None
    seconds = split.seconds_per_byte * encoded_bytes(case) / USED_SHARE
    return seconds + case.round_trip_seconds, split.shares


def encoded_bytes(case: Case) -> float:
    """Bytes of an encoded payload."""
    return _sizes(case).payload


def _improved(case: Case, number: int) -> float:
    """Seconds of the reduction if one island's link were faster."""
    links = [*case.links]
    links[number] = (FASTER * links[number][0], FASTER * links[number][1])
    return reduction(msgspec.structs.replace(case, links=tuple(links)))[0]


def _site(link: Sequence[float], participant: bool) -> Site:
    rate = min(link) * MBIT_BYTES * PIECES_SHARE
    return Site(bytes_per_second=rate, participant=participant, may_own=True)


def _sizes(case: Case) -> Sizes:
    return sizes(case.num_parameters, case.codec, case.checkpoint_every)
