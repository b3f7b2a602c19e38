"""The parts of a view, from what a reducer knows."""

from collections import Counter

from msgspec.structs import replace

from atoll.dashboard.island import Island
from atoll.dashboard.reducer import Reducer
from atoll.dashboard.taking import Taking, taking
from atoll.dashboard.view import (
    MAX_CONTRIBUTORS,
    MAX_ISLANDS,
    About,
    Alerted,
    Contributor,
    Evaluation,
    IslandRow,
    Now,
    Steps,
    Story,
)
from atoll.events import Alert, Evaluated
from atoll.status import IslandStatus
from atoll.words import MAX_NAME_LENGTH, MAX_SAMPLE_LENGTH, one_line


def about(reducer: Reducer, complaint: str) -> About:
    """What the run is; `complaint`: what of its events file cannot be read."""
    return replace(
        reducer.about,
        run_id=reducer.run_id,
        num_outer_steps=_num_outer_steps(reducer),
        complaint=complaint,
        first_step=reducer.steps.first,
    )


def now(reducer: Reducer, time: float, reading: float | None) -> Now:
    """How the run is; `reading`: the share of the events file that is read, None once all is."""
    steps, rows = reducer.steps, _rows(reducer)
    islands = [island for island in reducer.islands.values() if not island.relay]
    taken = [_taking(reducer, key, island, rows)[0] for key, island in reducer.islands.items()]
    status = reducer.status if reducer.hosted else None
    sent, saved = steps.bytes()
    pace, num_steps = steps.seconds_per_step, _num_outer_steps(reducer)
    live = sum(row.metrics.tokens_per_second for row in rows.values() if row.present)
    return Now(
        time=time,
        newest=reducer.newest,
        reading=reading,
        hosted=reducer.hosted,
        finished=reducer.finished,
        stall=one_line(status.stall) if status else reducer.stall,
        step=reducer.step,
        attempt=reducer.attempt.number if reducer.attempt else 0,
        num_alive=None if reducer.is_past else sum(island.alive for island in islands),
        num_taking_part=None if None in taken else sum(map(bool, taken)),
        num_committed=_num_committed(reducer),
        num_relays=sum(island.alive and island.relay for island in reducer.islands.values()),
        tokens=steps.tokens + reducer.tokens_before,
        open_tokens=_open_tokens(reducer, rows),
        tokens_per_second=live or (None if reducer.finished else steps.tokens_per_second),
        loss=steps.last_loss,
        committed_at=steps.last_time,
        seconds_per_step=pace,
        remaining_seconds=pace * (num_steps - reducer.step) if pace and num_steps is not None else None,
        sent_bytes=sent,
        saved=saved,
        alerts=[_alerted(reducer, a) for a in sorted(reducer.alerts.values(), key=lambda a: a.time)],
    )


def islands(reducer: Reducer) -> list[IslandRow]:
    """The islands: those that are here first, then by what they gave."""
    rows = _rows(reducer)
    order = sorted(
        reducer.islands.items(),
        key=lambda each: (not each[1].alive, each[1].relay, -each[1].tokens, each[0]),
    )
    return [
        island.row(
            name=reducer.names.of(key),
            newest=reducer.steps.newest,
            taking=_taking(reducer, key, island, rows),
            now=rows.get(key),
            is_past=reducer.is_past,
        )
        for key, island in order[:MAX_ISLANDS]
    ]


def steps(reducer: Reducer) -> Steps:
    """The curves."""
    return reducer.steps.view(reducer.tokens_before)


def story(reducer: Reducer) -> Story:
    """What happened, and who gave what."""
    tokens, number, unnamed = Counter[str](), Counter[str](), set[str]()
    for key, island in reducer.islands.items():
        if island.relay and not island.tokens:
            continue
        name = island.contributor or key
        tokens[name] += island.tokens
        number[name] += 1
        if not island.contributor:
            unnamed.add(name)
    return Story(
        lines=reducer.timeline.lines(),
        evaluations=[_evaluation(event) for event in reversed(reducer.evaluations)],
        contributors=[
            Contributor(
                name=one_line(name, MAX_NAME_LENGTH),
                is_named=name not in unnamed,
                num_islands=number[name],
                tokens=count,
            )
            for name, count in tokens.most_common(MAX_CONTRIBUTORS)
        ],
        num_contributors=len(tokens),
        consumed=_consumed(reducer),
    )


def _num_outer_steps(reducer: Reducer) -> int | None:
    return reducer.status.num_outer_steps if reducer.status else reducer.about.num_outer_steps


def _rows(reducer: Reducer) -> dict[str, IslandStatus]:
    """What the coordinator says now of each island; nothing while it does not answer."""
    return {row.island: row for row in reducer.status.islands} if reducer.status and reducer.hosted else {}


def _taking(reducer: Reducer, key: str, island: Island, rows: dict[str, IslandStatus]) -> Taking:
    return taking(reducer, key, island, rows.get(key))


def _num_committed(reducer: Reducer) -> int | None:
    newest = reducer.steps.newest
    if newest < 0:
        return None
    return sum(island.last_commit == newest for island in reducer.islands.values())


def _open_tokens(reducer: Reducer, rows: dict[str, IslandStatus]) -> int | None:
    """Tokens of inner steps whose outer step is not committed yet."""
    each, status = reducer.about.tokens_per_inner_step, reducer.status
    if not rows or each is None or status is None or status.step != reducer.step:
        return None
    return sum(row.inner_step for row in rows.values() if row.present) * each


def _consumed(reducer: Reducer) -> dict[str, int] | None:
    """Committed tokens by source: by the coordinator's ledger, else as the commits tell."""
    total = Counter[str]()
    if reducer.status is not None and reducer.status.ledger:
        for by_source in reducer.status.ledger.values():
            total.update(by_source)
    else:
        total = reducer.sources
    return {one_line(source, MAX_NAME_LENGTH): count for source, count in sorted(total.items())} or None


def _alerted(reducer: Reducer, alert: Alert) -> Alerted:
    return Alerted(
        since=alert.time,
        what=alert.what,
        island=one_line(alert.island, MAX_NAME_LENGTH),
        text=one_line(reducer.names.within(alert.text)),
    )


def _evaluation(event: Evaluated) -> Evaluation:
    def named(name: str) -> str:
        return one_line(name, MAX_NAME_LENGTH)

    return Evaluation(
        time=event.time,
        step=event.step,
        scores={named(name): (score.value, score.standard_error) for name, score in event.scores.items()},
        heldout_losses={named(name): loss for name, loss in event.heldout_losses.items()},
        samples=[one_line(text, MAX_SAMPLE_LENGTH) for text in event.samples],
    )
