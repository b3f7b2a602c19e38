"""How the run is, as its coordinator sees it: who is in, how far it is, who gave how much of which source."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from atoll.coordinator.members import Member
from atoll.coordinator.server import CoordinatorServer
from atoll.metrics import Metrics
from atoll.samples import Ranges
from atoll.status import IslandStatus, RunStatus, Told, ledger

CountSamples = Callable[[Ranges, tuple[int, ...]], Mapping[str, int]]


def count_nothing(ranges: Ranges, stage_starts: tuple[int, ...]) -> Mapping[str, int]:
    """For a run whose samples are of no source: a module and loop of one's own."""
    return {}


class StatusBoard:
    """Counts committed samples by island and source as they come; `status` is cheap to ask again."""

    def __init__(self, server: CoordinatorServer, count_samples: CountSamples) -> None:
        """`count_samples` gives, of ranges of samples, how many are of each source: the mixture knows."""
        self._server = server
        self._count_samples = count_samples
        self._samples: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by island, then source
        self._num_counted = 0  # commits that are in it

    def status(self) -> RunStatus:
        """Who is in, how far the run is, and who gave what, now."""
        self._count_new_commits()
        server, protocol = self._server, self._server.protocol
        names = server.store.contributors()
        known = sorted(protocol.members.keys() | protocol.history.tokens.keys())
        islands = tuple(
            self._island(island, names.get(island, ""), protocol.members.get(island)) for island in known
        )
        return RunStatus(
            run_id=server.run.run_id,
            name=server.run.name,
            term=protocol.term.counter,
            finished=protocol.finished,
            step=protocol.head,
            num_outer_steps=protocol.rules.num_outer_steps,
            num_inner_steps=protocol.rules.inner_steps,
            root=protocol.head_root.hex(),
            attempt=protocol.number,
            proposed=tuple(sorted(protocol.proposals)),
            committed_tokens=protocol.history.tokens.total(),
            ledger=ledger(islands),
            sent_bytes=server.transport.sent_bytes,
            islands=islands,
            events=tuple(Told(time=e.time, kind=e.kind, text=e.text) for e in server.events.notable),
        )

    def _island(self, island: str, contributor: str, member: Member | None) -> IslandStatus:
        """One row; `member` is None for an island that this coordinator knows from commits alone."""
        protocol = self._server.protocol
        beat, length = member.beat if member else None, protocol.rules.context_length
        samples = self._samples[island]
        return IslandStatus(
            island=island,
            contributor=contributor,
            relay=bool(member and member.relay),
            present=bool(member and member.present),
            ready=bool(member and member.is_ready(protocol.head)),
            addresses=tuple(map(str, member.addresses)) if member else (),
            note=beat.note if beat else "",
            inner_step=(member and member.inner_steps_done(protocol.head)) or 0,
            metrics=beat.metrics if beat else Metrics(),
            sent_bytes=beat.sent_bytes if beat else 0,
            committed_tokens=protocol.history.tokens[island],
            committed_tokens_by_source={source: count * length for source, count in samples.items()},
        )

    def _count_new_commits(self) -> None:
        for record in self._server.store.commits(self._num_counted):
            self._num_counted += 1
            for island, lease in record.leases:
                self._samples[island].update(self._count_samples(lease, record.stage_starts))
