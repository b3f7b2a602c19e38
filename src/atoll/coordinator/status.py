"""How the run is, as its coordinator sees it: who is in, how far it is, who gave how much of which source."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from atoll.coordinator.server import CoordinatorServer
from atoll.samples import Ranges

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

    def status(self) -> dict[str, Any]:
        """Who is in, and how far the run is, as plain values."""
        server, protocol = self._server, self._server.protocol
        names = server.store.contributors()
        islands: list[dict[str, Any]] = []
        for record in server.store.commits(self._num_counted):
            self._num_counted += 1
            for island, lease in record.leases:
                self._samples[island].update(self._count_samples(lease, record.stage_starts))
        for island in sorted(protocol.members.keys() | protocol.history.tokens.keys()):
            member = protocol.members.get(island)
            beat = member.beat if member else None
            length = protocol.rules.context_length
            islands.append(
                {
                    "island": island,
                    "contributor": names.get(island, ""),
                    "relay": bool(member and member.relay),
                    "present": bool(member and member.present),
                    "address": member.address if member else "",
                    "ready": bool(member and member.is_ready(protocol.head)),
                    "tokens": protocol.history.tokens[island],
                    "sources": {name: n * length for name, n in self._samples[island].items()},
                    "inner_step": beat.inner_step if beat and beat.step == protocol.head else 0,
                    "loss": beat.loss if beat else 0.0,
                    "tokens_per_second": beat.tokens_per_second if beat else 0.0,
                    "sent_bytes": beat.sent_bytes if beat else 0,
                    "compute_seconds": beat.compute_seconds if beat else 0.0,
                    "communicate_seconds": beat.communicate_seconds if beat else 0.0,
                    "wait_seconds": beat.wait_seconds if beat else 0.0,
                    "note": beat.note if beat else "",
                }
            )
        rules = protocol.rules
        return {
            "run": server.run.run_id,
            "name": server.run.name,
            "step": protocol.head,
            "outer_steps": rules.num_outer_steps,
            "inner_steps": rules.inner_steps,
            "finished": protocol.finished,
            "root": protocol.head_root.hex(),
            "term": protocol.term.counter,
            "tokens": sum(protocol.history.tokens.values()),
            "islands": islands,
            "proposed": sorted(protocol.proposals),
            "attempt": protocol.number,
            "sent_bytes": server.transport.sent_bytes,
            "events": [
                {"time": event.time, "kind": event.kind, "text": event.text}
                for event in server.events.notable
            ],
        }
