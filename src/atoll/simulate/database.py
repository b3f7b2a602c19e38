"""The coordinator's database, with the semantics of `coordinator/store.py`: terms, keys, transactions."""

from dataclasses import dataclass, field

from atoll.coordinator.effects import Doubted, OpenStep, Record
from atoll.coordinator.store import Deposed
from atoll.samples import merge
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Plan, Term


class Conflict(Exception):
    """A record whose primary key is taken: SQL would refuse it, and the coordinator would crash."""


@dataclass(kw_only=True)
class Database:
    """Durable once `append` returns; outlives every coordinator."""

    term: Term = field(default_factory=Term)
    stage_starts: tuple[int, ...] = ()
    doubted: bool = False
    plans: dict[tuple[int, str], Plan] = field(default_factory=dict)
    attempts: dict[tuple[int, int], Attempt] = field(default_factory=dict)
    commits: list[CommitRecord] = field(default_factory=list)
    _nonces: int = 0  # never the same twice, whatever a backup brings back
    _backups: list["Database"] = field(default_factory=list)  # one after each commit

    def begin_term(self) -> Term:
        """Take the next term; whoever held an earlier one can persist nothing any more."""
        return self._begin(self.term.counter + 1)

    def raise_term(self, held: Term, above: int) -> Term:
        """A new term for the leader, above one that an island remembers. Raises Deposed for anybody else."""
        self.check(held)
        return self._begin(max(held.counter, above) + 1)

    def check(self, held: Term) -> None:
        """Raises Deposed unless `held` is the term that reigns."""
        if self.term != held:
            raise Deposed(f"term {self.term.counter} has begun elsewhere")

    def _begin(self, counter: int) -> Term:
        self._nonces += 1
        self.term = Term(counter, f"nonce {self._nonces}")
        return self.term

    def append(self, term: Term, records: list[Record]) -> None:
        """All or nothing. Raises Deposed, or Conflict where a key is taken."""
        self.check(term)
        before = (
            dict(self.plans),
            dict(self.attempts),
            list(self.commits),
            list(self._backups),
            self.stage_starts,
            self.doubted,
        )
        try:
            for record in records:
                if (key := _key(record)) is not None and self._is_taken(key):
                    raise Conflict(f"{[type(record).__name__ for record in records]}: a key is taken")
                self._insert(record)
        except (Conflict, ValueError):
            self.plans, self.attempts, self.commits, self._backups, self.stage_starts, self.doubted = before
            raise

    def open_step(self, step: int) -> OpenStep:
        plans = [plan for (at, _), plan in self.plans.items() if at == step]
        number = max((number for at, number in self.attempts if at == step), default=0)
        return OpenStep(plans, number, self.stage_starts, self.doubted)

    def go_back(self, num_commits: int) -> None:
        """An operator restores the backup that was made so many commits ago."""
        if num_commits < len(self._backups):
            old = self._backups[-1 - num_commits]
            self.term, self.stage_starts, self.doubted = old.term, old.stage_starts, old.doubted
            self.plans, self.attempts, self.commits = dict(old.plans), dict(old.attempts), list(old.commits)
            self._backups = self._backups[: len(self._backups) - num_commits]

    def _is_taken(self, key: tuple[int, str | int | None]) -> bool:
        step, name = key
        return step < len(self.commits) if name is None else key in self.plans or key in self.attempts

    def _insert(self, record: Record) -> None:
        match record:
            case Plan():
                self.plans[record.step, record.island] = record
                self.stage_starts = record.stage_starts
            case Attempt():
                self.attempts[record.step, record.number] = record
            case CommitRecord():
                self.commits.append(record)
                self.plans = {key: plan for key, plan in self.plans.items() if key[0] >= record.step}
                self.attempts = {
                    key: attempt for key, attempt in self.attempts.items() if key[0] >= record.step
                }
                self._backups.append(
                    Database(
                        term=self.term,
                        stage_starts=self.stage_starts,
                        doubted=self.doubted,
                        plans=self.plans.copy(),
                        attempts=self.attempts.copy(),
                        commits=self.commits.copy(),
                    )
                )
            case Doubted():
                self.doubted = record.is_open
            case Assembled():
                pass  # decides nothing after a restart


def _key(record: Record) -> tuple[int, str | int | None] | None:
    """The primary key of a record in its table: (step, island, number or nothing); None if it has none."""
    match record:
        case Plan():
            return record.step, record.island
        case Attempt():
            return record.step, record.number
        case CommitRecord():
            merge([span for _, lease in record.leases for span in lease])  # as the store refuses overlaps
            return record.step, None
        case Assembled() | Doubted():
            return None
