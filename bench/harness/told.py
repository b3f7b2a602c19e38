"""The events of a run that never was, of any size, with islands that come and go; for benches and tests."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from atoll import events as e
from atoll.events import Event
from atoll.events.log import VERSION
from atoll.events.step import Contribution
from atoll.metrics import Exchange, Metrics, Score

PLACES = (
    "London",
    "Kyoto, Japan",
    "Berlin",
    "San Francisco",
    "Buenos Aires",
    "Nairobi",
    "Sydney",
    "Reykjavik",
    "Bengaluru",
    "São Paulo",
    "Toronto",
    "Atlantis",
    "",
)
PEOPLE = ("Ada", "Emmy", "Grace", "Katherine", "Hedy", "Alan", "Sofia", "Mary", "Annie", "Rosalind")
ROOT = "ab" * 32
TOKENS = 204_800  # of one island in an outer step
SAMPLE = "The captain looked at the sea, and the sea looked back at him with an old and patient eye."
DEATHS = 0.05  # outer steps in which an island dies


def told(num_islands: int, num_steps: int, began: float, step_seconds: float = 40.0) -> Iterator[Event]:
    """Events with their times, oldest first; the same ones for the same numbers."""
    choose, at = random.Random(1), began
    ids = [f"{choose.getrandbits(64):016x}" for _ in range(num_islands)]

    def timed(event: Event) -> Event:
        return msgspec.structs.replace(event, time=at)

    def joins(island: str, step: int) -> Iterator[Event]:
        name = PEOPLE[ids.index(island) % len(PEOPLE)]
        yield timed(e.Joined(island=island, step=step, contributor=name, relay=False))
        if step:
            yield timed(e.Recovered(island=island, step=step, recovery_seconds=3.1))
        yield timed(e.Ready(island=island, step=step, trainer=True, root=ROOT))

    yield timed(e.ReignBegan(step=0, run_id="reef-12345678", term=1))
    for number, island in enumerate(ids):
        at += 0.1
        name, place = PEOPLE[number % len(PEOPLE)], PLACES[number % len(PLACES)]
        yield timed(e.Enrolled(island=island, contributor=name, place=place))
        yield from joins(island, 0)
    spent = {island: [0.0, 0.0, 0.0] for island in ids}
    gone: dict[str, int] = {}
    for step in range(num_steps):
        for island in [island for island, until in gone.items() if until <= step]:
            del gone[island]
            spent[island] = [0.0, 0.0, 0.0]
            yield from joins(island, step)
        here = [island for island in ids if island not in gone]
        if choose.random() < DEATHS and len(here) > 1:
            island = choose.choice(here)
            gone[island] = step + choose.randint(2, 5)
            here.remove(island)
            yield timed(e.Left(island=island, step=step, reason="its line broke: connection reset by peer"))
        at += 0.85 * step_seconds
        participants = tuple(here)
        yield timed(
            e.AttemptOpened(step=step, number=1, participants=participants, left_out=(), num_owners=4)
        )
        at += 0.15 * step_seconds
        loss = 2.2 + 6 * math.exp(-4 * step / num_steps) + choose.gauss(0, 0.015)
        for island in here:
            for part, share in enumerate((0.8 * choose.uniform(0.9, 1.03), 0.1, 0.1)):
                spent[island][part] += share * step_seconds
        yield timed(
            e.Committed(
                step=step,
                tokens=TOKENS * len(here),
                loss=loss,
                participants={
                    island: _given(loss + choose.gauss(0, 0.03), spent[island], step_seconds)
                    for island in here
                },
                holders=participants,
                root=ROOT,
                reduce_seconds=0.1 * step_seconds,
                hold_seconds=0.03 * step_seconds,
                norm=0.5 * choose.uniform(0.95, 1.05),
                cosine=0.3 + 0.2 * choose.random(),
                sources={"books": TOKENS * len(here) * 4 // 5, "python": TOKENS * len(here) // 5},
            )
        )
        if step and step % max(30, num_steps // 20) == 0:
            score = Score(0.25 + 0.2 * step / num_steps, 0.01)
            losses, samples = {"books": loss + 0.05}, (SAMPLE,)
            yield timed(
                e.Evaluated(
                    step=step, root=ROOT, scores={"arc_easy": score}, heldout_losses=losses, samples=samples
                )
            )


def write(path: Path, events: Iterator[Event]) -> None:
    """Write them as a coordinator would."""
    with path.open("wb") as file:
        for event in events:
            line = {"version": VERSION, **msgspec.to_builtins(event), "text": event.text}
            file.write(msgspec.json.encode(line) + b"\n")


def _given(loss: float, spent: list[float], step_seconds: float) -> Contribution:
    computing, exchanging, waiting = spent
    return Contribution(
        tokens=TOKENS,
        inner_steps=100,
        loss=loss,
        norm=0.8,
        metrics=Metrics(
            loss=loss,
            tokens_per_second=5_000.0,
            gradient_norm=0.5,
            learning_rate=0.001,
            compute_seconds=computing,
            communicate_seconds=exchanging,
            wait_seconds=waiting,
        ),
        exchange=Exchange(
            send_seconds=0.05 * step_seconds,
            reduce_seconds=0.1 * step_seconds,
            disk_seconds=1.0,
            sent_bytes=1_200_000,
            received_bytes=1_200_000,
        ),
    )
