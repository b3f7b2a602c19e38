"""What one hostile member costs four honest islands, and how soon it is left out.

    python bench/hostile.py [--only scales] [--seconds 60]

Plays each attack of tests/worlds/attacks.py, and some of them two at a time, in memory: real agents,
coordinator, codec and messages, trainers that sleep, and time that passes only while everything waits. So
machine and links do not matter, and what an attack costs in computing does not show. An outer step is 1 s.

One row for each: `kept` is what the honest islands had committed so many seconds after the attack began, in
tokens, over what they commit in a calm swarm in as long, and `kept_later` the same without the first quarter
of the time, in which deadlines of seconds cost several such short steps. `memory_mb` is how much the process
of all members has grown. An attack without `excluded_after_steps` is one whose maker nobody can tell.
"""

import asyncio
import resource
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.report import Report, arguments

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from worlds.attack import Attack
from worlds.attacks import ATTACKS, COMBINED
from worlds.clock import run
from worlds.hostile import honest
from worlds.swarm import Swarm

HONEST = "abcd"
FIRST_SHARE = 0.25  # of the time: in it the members find out who it is, and deadlines pass


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--seconds", type=float, default=60.0, help="of attack, in the swarm's time")
    options = parser.parse_args()
    report = Report("hostile", options, keys=("attack",))
    calm: dict[int, int] = {}
    for name, attack in (ATTACKS | COMBINED).items():
        if options.only not in name:
            continue
        if (others := num_liars(attack())) not in calm:
            with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
                calm[others] = run(calm_tokens(others, Path(directory), options.seconds))
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
            report.add({"attack": name, **run(play(name, Path(directory), options.seconds, calm))})


async def play(name: str, directory: Path, seconds: float, calm: Mapping[int, int]) -> dict[str, Any]:
    """The row of one attack. `calm`: what is committed in so many seconds beside a number of calm liars."""
    attack, swarm = (ATTACKS | COMBINED)[name](), Swarm(directory, num_outer_steps=1000)
    try:
        await honest(swarm, HONEST)
        await attack.prepare(swarm)
        await swarm.until_step(swarm.head + 2)
        step, megabytes = swarm.head, resident_mb()
        await attack.begin(swarm)
        first = await tokens_in(swarm, seconds * FIRST_SHARE)
        later = await tokens_in(swarm, seconds * (1 - FIRST_SHARE))
        out = {event.island: event.step for event in reversed(swarm.events()) if event.kind == "excluded"}
        usual = calm[num_liars(attack)]
        seen = [out[liar] - step for liar in attack.liars if liar in out]
        return {
            "kept": round((first + later) / usual, 3),
            "kept_later": round(later / (usual * (1 - FIRST_SHARE)), 3),
            "excluded_after_steps": max(seen) if len(seen) == len(attack.liars) else None,
            "honest_excluded": len(out.keys() & {*HONEST, "r"}),
            "memory_mb": round(resident_mb() - megabytes, 1),
            "seconds": seconds,
            "stood": "in memory, in virtual time",
        }
    finally:
        await attack.end()
        await swarm.stop()


def num_liars(attack: Attack) -> int:
    """How many members that train an attack adds to the honest ones."""
    return len(attack.liars) * attack.is_agent


async def calm_tokens(num_others: int, directory: Path, seconds: float) -> int:
    """What honest islands commit beside so many others that are honest too."""
    swarm = Swarm(directory, num_outer_steps=1000)
    try:
        await honest(swarm, HONEST + "vwxyz"[:num_others])
        await swarm.until_step(swarm.head + 2)
        return await tokens_in(swarm, seconds)
    finally:
        await swarm.stop()


async def tokens_in(swarm: Swarm, seconds: float) -> int:
    """How many tokens of honest islands are committed in so many seconds from now."""
    before = swarm.head
    await asyncio.sleep(seconds)
    records = swarm.store.commits(before)
    return sum(share.tokens for record in records for share in record.participants if share.island in HONEST)


def resident_mb() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
