"""How the run is, as its coordinator sees it: who is in, how far it is, who gave how much of which source.

`StatusBoard` asks a coordinator that leads, `kept_status` the database of one that does not run.
"""

import time
from collections.abc import Iterable, Mapping

from atoll import recipe as recipes
from atoll.coordinator.consumed import Committed, CountSamples
from atoll.coordinator.history import History
from atoll.coordinator.members import Member
from atoll.coordinator.overview import overview
from atoll.coordinator.server import CoordinatorServer
from atoll.coordinator.store import Enrolment, Store
from atoll.events import Alert, Evaluated, Event
from atoll.metrics import Metrics
from atoll.status import Evaluation, IslandStatus, RunStatus, Told, ledger
from atoll.swarm.records import Plan, RunInfo, decode

MBIT_PER_BYTE = 8e-6
NOBODY = Enrolment("", "", "", "")


class StatusBoard:
    """Counts committed samples as they come; `status` is cheap to ask again."""

    def __init__(self, server: CoordinatorServer, count_samples: CountSamples) -> None:
        """`count_samples` as in `Committed`."""
        self._server = server
        self._committed = Committed(count_samples)

    def status(self) -> RunStatus:
        """Who is in, how far the run is, and who gave what, now."""
        server, protocol = self._server, self._server.protocol
        for record in server.store.commits(self._committed.num_counted):
            self._committed.add(record)
        enrolled = server.store.enrolled()
        seen = overview(protocol)
        known = protocol.members.keys() | protocol.history.tokens.keys() | _evicted(enrolled)
        islands = tuple(
            island_status(
                island,
                enrolled.get(island, NOBODY),
                protocol.history,
                self._committed.tokens_by_source(island, protocol.rules.context_length),
                protocol.members.get(island),
                protocol.plans.get(island),
                protocol.standing.reasons.get(island, ""),
            )
            for island in sorted(known)
        )
        return RunStatus(
            hosted=True,
            time=time.time(),
            run_id=server.run.run_id,
            name=server.run.name,
            term=protocol.term.counter,
            finished=protocol.finished,
            stall=seen.stall,
            step=protocol.head,
            num_outer_steps=protocol.rules.num_outer_steps,
            num_inner_steps=protocol.rules.inner_steps,
            num_islands=seen.num_islands,
            num_awaited=seen.num_awaited,
            root=protocol.head_root.hex(),
            attempt=protocol.number,
            proposed=tuple(sorted(protocol.proposals)),
            committed_tokens=protocol.history.tokens.total(),
            ledger=ledger(islands),
            sent_bytes=server.transport.sent_bytes,
            islands=islands,
            evaluation=_evaluation(server.events.evaluated),
            events=_told(server.events.notable),
            alerts=_told(server.events.alerts.values()),
        )


def kept_status(
    store: Store,
    run: RunInfo,
    count_samples: CountSamples,
    notable: Iterable[Event],
    evaluated: Evaluated | None,
    alerts: Iterable[Alert] = (),
) -> RunStatus:
    """The run as its database knows it, while no coordinator leads it.

    `notable`, `evaluated`, `alerts`: in its events file, the last events, the newest evaluation, and what was
    not over when the last coordinator ended.
    """
    recipe = recipes.parse(run.recipe, run.run_id)
    history, committed = History(run.genesis_root), Committed(count_samples)
    for record in store.commits():
        history.add(record)
        committed.add(record)
    enrolled, relays = store.enrolled(), store.relays()
    islands = tuple(
        island_status(
            island,
            enrolled.get(island, NOBODY),
            history,
            committed.tokens_by_source(island, recipe.inner.context_length),
            is_relay=island in relays,
        )
        for island in sorted(history.tokens.keys() | enrolled.keys())
    )
    term, renewed = store.last_reign()
    return RunStatus(
        hosted=False,
        time=renewed,
        run_id=run.run_id,
        name=run.name,
        term=term,
        finished=history.head >= recipe.num_outer_steps,
        stall="",
        step=history.head,
        num_outer_steps=recipe.num_outer_steps,
        num_inner_steps=recipe.outer.inner_steps,
        num_islands=0,
        num_awaited=recipe.outer.min_participants,
        root=history.head_root.hex(),
        attempt=0,
        proposed=(),
        committed_tokens=history.tokens.total(),
        ledger=ledger(islands),
        sent_bytes=0,
        islands=islands,
        evaluation=_evaluation(evaluated),
        events=_told(notable),
        alerts=_told(alerts),
    )


def island_status(
    island: str,
    kept: Enrolment,
    history: History,
    tokens_by_source: dict[str, int],
    member: Member | None = None,
    plan: Plan | None = None,
    left_out: str = "",
    is_relay: bool = False,
) -> IslandStatus:
    """One row of a status; `member` is None for an island that is known from the database alone.

    `is_relay`: what the database knows of that one. `left_out`: why it takes no part in the open step; empty
    where it may.
    """
    beat = member.beat if member else None
    note = f"left out of step {history.head}: {left_out}" if left_out else beat.note if beat else ""
    return IslandStatus(
        island=island,
        contributor=kept.contributor,
        place=kept.place,
        link=kept.link,
        relay=member.relay if member else is_relay,
        present=bool(member and member.present),
        ready=bool(member and member.is_ready(history.head)),
        evicted=kept.evicted,
        addresses=tuple(map(str, member.addresses)) if member else (),
        note=note,
        inner_step=(member and member.inner_steps_done(history.head)) or 0,
        planned_inner_steps=plan.inner_steps if plan else 0,
        metrics=beat.metrics if beat else Metrics(),
        sent_bytes=beat.sent_bytes if beat else 0,
        up_mbit=beat.rates.up_bytes_per_second * MBIT_PER_BYTE if beat else 0.0,
        down_mbit=beat.rates.down_bytes_per_second * MBIT_PER_BYTE if beat else 0.0,
        utilisation=beat.metrics.utilisation if beat else None,
        committed_tokens=history.tokens[island],
        committed_tokens_by_source=tokens_by_source,
    )


def kept_run(store: Store) -> RunInfo | None:
    """What the run in a database is; None if there is none yet."""
    info = store.info()
    return decode(info, RunInfo) if info else None


def _evicted(enrolled: Mapping[str, Enrolment]) -> set[str]:
    return {island for island, kept in enrolled.items() if kept.evicted}


def _evaluation(event: Evaluated | None) -> Evaluation | None:
    if event is None:
        return None
    return Evaluation(
        time=event.time,
        step=event.step,
        root=event.root,
        island=event.island,
        scores=event.scores,
        heldout_losses=event.heldout_losses,
    )


def _told(events: Iterable[Event]) -> tuple[Told, ...]:
    return tuple(Told(time=event.time, kind=event.kind, text=event.text) for event in events)
