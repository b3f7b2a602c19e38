"""What this machine's link carries, as far as that is known, and what it means for a run."""

from pathlib import Path

import msgspec

from atoll.agent.rates import kept_rates
from atoll.doctor.asked import Asked
from atoll.doctor.finding import Finding
from atoll.doctor.needs import Needs, gb
from atoll.metrics import Rates
from atoll.simulate.plan import MBIT_BYTES, Case, Machine, outlook, reduction
from atoll.terminal import duration

WANTED = 0.9  # of the time, in inner steps
GUESSED_ROUND_TRIP_SECONDS = 0.1
MEASURED_MBIT = 1000.0  # what so little filler can tell, at most
EXAMPLE_PARAMETERS = 1_235_814_400  # of the preset 1b


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link, in Mbit/s up and down, and who says so."""

    up: float
    down: float
    source: str

    @property
    def text(self) -> str:
        return f"{self.up:,.0f} Mbit/s up and {self.down:,.0f} down, {self.source}"


def known_link(run_dir: Path, given: tuple[float, float] | None) -> Link | None:
    """What `given` says, else what an island of this directory has learned; None: neither."""
    if given is not None:
        return Link(up=given[0], down=given[1], source="as you say")
    for path in sorted((run_dir / "islands").glob("*")):
        rates = kept_rates(path)
        if rates.slower:
            return _of(rates, f"as {path.name} has seen")
    return None


def measured_link(asked: Asked) -> Link | None:
    """What the line to the run's host carried when it was asked; None where that was not measured."""
    if not asked.rates.slower:
        return None
    link = _of(asked.rates, "as measured just now to the run's host")
    if max(link.up, link.down) < MEASURED_MBIT:
        return link
    least = f"{link.source} ({MEASURED_MBIT:,.0f} is the most that is told)"
    return Link(up=min(link.up, MEASURED_MBIT), down=min(link.down, MEASURED_MBIT), source=least)


def _of(rates: Rates, source: str) -> Link:
    up, down = (each / MBIT_BYTES for each in (rates.up_bytes_per_second, rates.down_bytes_per_second))
    return Link(up=up, down=down, source=source)


def judge_link(
    link: Link | None, needs: Needs | None, machine: Machine | None, round_trip_seconds: float
) -> Finding:
    """What a link means for utilisation: of this run, where one is known, and of islands that are all equal.

    `machine`: the constants of this one; needed where both link and run are known.
    """
    about, trip = "bandwidth", round_trip_seconds or GUESSED_ROUND_TRIP_SECONDS
    if link is None:
        said = "not known before this machine has taken part in an outer step"
        if needs is not None and needs.inner_step_seconds:
            said += f"; with {_wanted(needs, trip):,.0f} Mbit/s each way {WANTED:.0%} of the time is training"
        return Finding(
            about=about,
            grade="unknown",
            found=said,
            do="if you know it, say so: --mbit UP/DOWN, as in 50/500",
        )
    if needs is None:
        case = _case(EXAMPLE_PARAMETERS, "int8", 2, (link.up, link.down), trip)
        seconds, _ = reduction(case)
        said = f"{link.text}: two such islands reduce a step of the preset 1b in {duration(seconds)}"
        return Finding(about=about, grade="right", found=said)
    case = msgspec.structs.replace(
        _case(needs.num_parameters, needs.codec, needs.num_islands, (link.up, link.down), trip),
        inner_steps=needs.inner_steps,
        inner_step_seconds=needs.inner_step_seconds or 1.0,
        checkpoint_every=needs.checkpoint_every,
    )
    assert machine is not None
    found = outlook(case, machine)
    said = f"{link.text}: a step of {len(case.links)} such islands is reduced in "
    said += duration(found.reduce_seconds)
    if not needs.inner_step_seconds:
        return Finding(
            about=about, grade="right", found=f"{said}; what share that is shows once somebody trains"
        )
    said += f", and {found.utilisation:.0%} of the time is training"
    if found.utilisation >= WANTED:
        return Finding(about=about, grade="right", found=said)
    wanted = _wanted(needs, trip)
    return Finding(
        about=about,
        grade="note",
        found=f"{said}, if this link is the slowest",
        do=f"{WANTED:.0%} needs {wanted:,.0f} Mbit/s each way; a relay on a good link helps (docs/links.md)",
    )


def _case(count: int, codec: str, num_islands: int, link: tuple[float, float], trip: float) -> Case:
    return Case(
        num_parameters=count,
        links=(link,) * max(2, num_islands),
        round_trip_seconds=trip,
        inner_steps=1,
        inner_step_seconds=1.0,
        codec=codec,
    )


def _wanted(needs: Needs, trip: float) -> float:
    """Mbit/s each way at which reducing takes no more than its share of the time."""
    assert needs.inner_step_seconds
    case = _case(needs.num_parameters, needs.codec, needs.num_islands, (1.0, 1.0), 0.0)
    seconds_at_one, _ = reduction(case)
    allowed = needs.inner_steps * needs.inner_step_seconds * (1 - WANTED) / WANTED
    return seconds_at_one / max(allowed - 1.5 * trip, 1e-3)


def traffic(needs: Needs) -> str:
    """What an island sends, and receives, in words."""
    said = f"{gb(needs.payload)} to {gb(needs.step_bytes)} in each outer step, each way"
    if needs.num_islands < 2:
        said = f"nothing while it is alone, {gb(needs.payload)} or more in each outer step with others"
    if (steps := needs.outer_steps_a_day) is None:
        return f"{said}; how much that is a day shows once somebody trains"
    if needs.num_islands < 2:
        return f"{said}, at most {steps:,.0f} steps a day"
    return f"{said}, at most {gb(steps * needs.step_bytes)} a day at the pace of those who train now"
