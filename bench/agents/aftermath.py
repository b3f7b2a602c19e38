"""What a storm did to a swarm, from its faults, the coordinator's events, the trainers' journals and the
records.

An island is *up* while its machine runs, its link is whole and its trainer holds a state of the swarm: down
from a kill until its trainer has adopted again, and as long as a freeze or a cut lasts. A dead coordinator
takes no island down, nor does a dead agent: its trainer works on. `kept`: committed tokens over what the
islands' up time gives at the rate of the calm steps before the storm. `raw`: over what all islands give, had
they always been up; `raw_predicted`: up time, less half an outer step of work for every island that was
struck, over all time. `participation`: participants of a commit over all islands, mean;
`participation_of_up`: over those up at the commit. `kept_of_untouched`: `kept` at the rate of the storm's own
steps that no fault touched, which are many more than the calm ones; `waited_seconds`: how much longer than
those the touched steps were, by cause. `resume`: from a fault between an attempt and its commit to the next
attempt or the commit: the swarm goes on. `rejoin`: from an island's new start to `ready` at the coordinator,
its trainer loaded and proven.
"""

import itertools
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from agents.swarm import Swarm
from atoll.events import Committed, Event, Unequal
from atoll.swarm.records import CommitRecord

Spans = list[tuple[float, float]]
# so long after its end, and a restart, a fault may still touch a step: start, recovery, a last inner step
FELT_SECONDS = 5.0


@dataclass(kw_only=True)
class Fault:
    """Times are seconds since the epoch."""

    kind: str
    target: str
    at: float
    until: float  # the end of a freeze or cut; of a kill its moment
    over: bool
    in_attempt: bool  # between an attempt's opening and its commit or end


class Aftermath:
    """Made while the swarm's directory is there."""

    def __init__(self, swarm: Swarm, faults: list[Fault], calm_from: float, calm_to: float) -> None:
        self._faults = faults
        self._events = list(swarm.events())
        self._commits = [e for e in self._events if isinstance(e, Committed)]
        self._calm = calm_from, calm_to
        self._felt_seconds = swarm.restart_seconds + FELT_SECONDS
        self._storm = calm_to, self._commits[-1].time
        self._ids = {name: swarm.island_id(name) for name in swarm.islands}
        self._starts = {name: thing.starts for name, thing in swarm.islands.items()}
        self._journals = {name: swarm.journal(name) for name in swarm.islands}

    def figures(self, records: list[CommitRecord]) -> dict[str, Any]:
        """`records`: the committed chain."""
        begin, end = self._storm
        seconds, islands = end - begin, len(self._ids)
        calm_seconds = self._calm[1] - self._calm[0]
        outer = calm_seconds / sum(self._calm[0] < e.time <= self._calm[1] for e in self._commits)
        # Tokens per second of an island that is up.
        rate = self._tokens(*self._calm) / (calm_seconds * islands)
        tokens = self._tokens(begin, end)
        up = {name: seconds - total(self._down(name), begin, end) for name in self._ids}
        struck = sum(fault.kind != "kill coordinator" for fault in self._faults)
        commits = [e for e in self._commits if begin < e.time <= end]
        taking_part = [len(e.participants) for e in commits]
        up_at = [sum(not covers(self._down(name), e.time) for name in self._ids) for e in commits]
        resume = {kind: self._resume(kind) for kind in sorted({f.kind for f in self._faults})}
        all_resume, rejoin = [s for found in resume.values() for s in found], self._rejoin()
        return {
            "outer_step_seconds": round(outer, 2),
            "outer_steps": len(commits),
            "storm_minutes": round(seconds / 60, 1),
            "faults": len(self._faults),
            "faults_per_outer_step": round(len(self._faults) / (seconds / outer), 2),
            "faults_by_kind": Counter(fault.kind for fault in self._faults),
            "kept": round(tokens / (rate * sum(up.values())), 4),
            **self._by_cause(tokens / sum(up.values())),
            "raw": round(tokens / (rate * seconds * islands), 4),
            "raw_predicted": round((sum(up.values()) - struck * outer / 2) / (seconds * islands), 4),
            "participation": round(statistics.mean(taking_part) / islands, 4),
            "participation_of_up": round(sum(taking_part) / sum(up_at), 4),
            "resume_seconds_median": middle(all_resume),
            "resume_seconds": {k: spread(v) for k, v in resume.items() if v},
            "rejoin_seconds_median": middle(rejoin),
            "rejoin_seconds": spread(rejoin),
            "attempts_per_commit": round(
                sum(e.kind == "attempt" and e.time > begin for e in self._events) / len(commits), 2
            ),
            "longest_step_seconds": round(max(b.time - a.time for a, b in itertools.pairwise(commits)), 1),
            "regressions": self._regressions(records),
            "unequal_roots": self._unequal(records),
            "stopped": self._stopped(),
        }

    def _tokens(self, begin: float, end: float) -> int:
        return sum(e.tokens for e in self._commits if begin < e.time <= end)

    def _by_cause(self, rate: float) -> dict[str, Any]:
        """What the storm's steps took, by what touched them; `rate`: committed tokens per second of an island
        that was up.
        """
        steps: dict[str, list[float]] = {}
        tokens = 0
        for before, commit in itertools.pairwise(e for e in self._commits if e.time >= self._storm[0]):
            cause = self._touched(before.time, commit.time)
            steps.setdefault(cause, []).append(commit.time - before.time)
            tokens += commit.tokens if cause == "nothing" else 0
        if not (whole := steps.pop("nothing", [])):
            return {"kept_of_untouched": None}
        mean = statistics.mean(whole)
        return {
            "kept_of_untouched": round(rate * sum(whole) * len(self._ids) / tokens, 4),
            "untouched_steps": len(whole),
            "untouched_step_seconds": round(mean, 2),
            "touched_steps": {cause: len(seconds) for cause, seconds in steps.items()},
            "waited_seconds": {
                cause: round(sum(seconds) - mean * len(seconds), 1) for cause, seconds in steps.items()
            },
        }

    def _touched(self, begin: float, end: float) -> str:
        """What touched the step between two commits most: a coordinator's death, a fault in its attempt,
        another.
        """
        felt = [f for f in self._faults if f.at <= end and f.until + self._felt_seconds > begin]
        if any(f.kind == "kill coordinator" for f in felt):
            return "coordinator"
        if any(f.in_attempt and f.at > begin for f in felt):
            return "in attempt"
        return "elsewhere" if felt else "nothing"

    def _down(self, name: str) -> Spans:
        """When an island was not up."""
        adopted = [
            note["time"] for note in self._journals[name] if note["what"] == "adopted" and not note["torn"]
        ]
        spans: Spans = []
        for fault in self._faults:
            if fault.target == name and fault.kind != "kill agent":
                back = next((t for t in adopted if t > fault.at), self._storm[1])
                spans.append((fault.at, back if fault.kind == "kill" else fault.until))
        return spans

    def _resume(self, kind: str) -> list[float]:
        """Seconds until the swarm went on, of the faults of a kind that struck between an attempt and its
        commit.
        """
        signs = [e.time for e in self._events if e.kind in ("attempt", "committed")]
        struck = [f.at for f in self._faults if f.kind == kind and f.in_attempt]
        return [next(t for t in signs if t > at) - at for at in struck]

    def _rejoin(self) -> list[float]:
        """Seconds from a new start of an island, or of its agent alone, to ready."""
        found: list[float] = []
        for fault in self._faults:
            if fault.kind in ("kill", "kill agent"):
                starts = self._starts[fault.target] if fault.kind == "kill" else [fault.at]
                start = next((t for t in starts if t >= fault.at), None)
                ready = next(
                    (e.time for e in self._of(fault.target, "ready") if start and e.time > start), None
                )
                if start and ready:
                    found.append(ready - start)
        return found

    def _of(self, name: str, kind: str) -> list[Event]:
        return [e for e in self._events if e.kind == kind and e.island == self._ids[name]]

    def _regressions(self, records: list[CommitRecord]) -> int:
        """Islands that adopted an older state than before, and steps that were not committed once and in
        order.
        """
        back = 0
        for notes in self._journals.values():
            steps = [note["step"] for note in notes if note["what"] == "adopted"]
            back += sum(b < a for a, b in itertools.pairwise(steps))
        return back + sum(record.step != step for step, record in enumerate(records))

    def _unequal(self, records: list[CommitRecord]) -> int:
        """States that a trainer loaded and that are not the committed ones, and the coordinator's own
        complaints.
        """
        wrong = sum(isinstance(e, Unequal) for e in self._events)
        for notes in self._journals.values():
            for note in notes:
                if note["what"] == "adopted" and not note["torn"] and note["step"] > 0:
                    wrong += note["root"] != records[note["step"] - 1].next_root.hex()
        return wrong

    def _stopped(self) -> list[str]:
        """Islands that would not go on by themselves, and why."""
        return [
            f"{name}: {note['reason']}"
            for name, notes in self._journals.items()
            for note in notes
            if note["what"] == "stopped" and note["reason"]
        ]


def total(spans: Spans, begin: float, end: float) -> float:
    """Seconds that the union of spans covers between two moments."""
    covered, at = 0.0, begin
    for a, b in sorted(spans):
        a, b = max(a, at), min(b, end)
        if b > a:
            covered, at = covered + b - a, b
    return covered


def covers(spans: Spans, moment: float) -> bool:
    return any(a <= moment <= b for a, b in spans)


def middle(seconds: list[float]) -> float | None:
    return round(statistics.median(seconds), 2) if seconds else None


def spread(seconds: list[float]) -> dict[str, float] | None:
    """Number, median, ninth decile, greatest."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    ninth = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    median, greatest = round(statistics.median(ordered), 2), round(ordered[-1], 2)
    return {"n": len(ordered), "median": median, "p90": round(ninth, 2), "max": greatest}
