"""The coordinator's durable log: SQLAlchemy Core over SQLite (default) or PostgreSQL.

A commit is one transaction, and only then an answer: the leader's term is checked inside it, the outer step
is the primary key, so a step is committed once whatever two leaders may believe.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sql
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

from atoll.coordinator import database
from atoll.coordinator.database import (
    ABANDONED,
    ATTEMPT,
    COMMIT,
    COORDINATOR,
    ISLAND,
    PLAN,
    REWIND,
    RUN,
    TICKET,
)
from atoll.coordinator.effects import Doubted, OpenStep, Record
from atoll.errors import UserError
from atoll.samples import Ranges, merge
from atoll.swarm.identity import new_secret
from atoll.swarm.layout import digest
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Plan, Rewind, Term, decode, encode

ANNOUNCED_SECONDS = 600.0  # a coordinator that has announced itself within this is one to dial


class Deposed(Exception):
    """Another coordinator has a higher term, or the database let go of this one: it must stop."""


class Store:
    """One run's database."""

    def __init__(self, url: str) -> None:
        """Open or create. Raises UserError when the database cannot be reached, or is of an older atoll."""
        self.url = url
        self._engine = database.open_engine(url)
        self.term = Term()
        self._spent: Ranges | None = None  # by all commits; None until this term's first

    def close(self) -> None:
        self._engine.dispose()

    # ------------------------------------------------------------------------------------------------ the run
    def claim(self, info: bytes) -> str:
        """Insert the run, or return what is there: the database's id. Raises UserError if it holds another
        run.
        """
        with self._engine.begin() as db:
            row = db.execute(sql.select(RUN)).one_or_none()
            if row is None:
                values = {
                    "id": 1,
                    "info": info,
                    "database_id": new_secret(),
                    "term": 0,
                    "nonce": "",
                    "stage_starts": "[]",
                    "renewed": 0.0,
                    "doubted": False,
                }
                db.execute(RUN.insert().values(**values))
                return str(values["database_id"])
            if bytes(row.info) != info:
                raise UserError(
                    f"{self._engine.url}: this database holds another run; give each run a directory "
                    "of its own"
                )
            return str(row.database_id)

    def info(self) -> bytes | None:
        with self._engine.connect() as db:
            row = db.execute(sql.select(RUN.c.info)).one_or_none()
        return bytes(row.info) if row else None

    def begin_term(self, above: int = 0) -> Term:
        """Take the next term, higher than `above`; whoever held an earlier one can persist nothing any
        more.
        """
        nonce = new_secret()
        next_term = sql.case((RUN.c.term < above, above), else_=RUN.c.term) + 1
        with self._engine.begin() as db:
            db.execute(RUN.update().values(term=next_term, nonce=nonce, renewed=self._clock()))
            counter = db.execute(sql.select(RUN.c.term)).scalar_one()
        self.term = Term(counter, nonce)
        self._spent = None
        return self.term

    def renew(self) -> None:
        """Say that this leader lives. Raises Deposed when another leads or the database fails."""
        with self._leading():
            pass

    @contextmanager
    def _leading(self) -> Generator[sql.Connection]:
        """A leader's transaction. First in it is a write, so that no other term can begin before it ends."""
        this = (RUN.c.term == self.term.counter) & (RUN.c.nonce == self.term.nonce)
        try:
            with self._engine.begin() as db:
                if db.execute(RUN.update().where(this).values(renewed=self._clock())).rowcount != 1:
                    raise Deposed(f"term {db.execute(sql.select(RUN.c.term)).scalar()} has begun elsewhere")
                yield db
        except (
            OperationalError,
            InternalError,
            InterfaceError,
        ) as error:  # gone, full, or tired of waiting for a sleeper
            reason = str(error.orig).partition("\n")[0]
            raise Deposed(f"the database broke off a transaction ({reason})") from error

    def silence_seconds(self) -> float:
        """How long the leader has not renewed, by the database's clock: nobody else's counts."""
        with self._engine.connect() as db:
            return float(db.execute(sql.select(self._clock() - RUN.c.renewed)).scalar_one())

    def reached(self) -> tuple[int, int]:
        """(counter of the term, number of commits): where either falls, somebody has restored a backup."""
        with self._engine.connect() as db:
            commits = db.execute(sql.select(sql.func.count()).select_from(COMMIT)).scalar_one()
            return db.execute(sql.select(RUN.c.term)).scalar_one(), commits

    def announce(self, address: str) -> list[str]:
        """Keep this coordinator's address; returns those of all that were seen of late, leader or standby."""
        with self._engine.begin() as db:
            db.execute(COORDINATOR.delete().where(COORDINATOR.c.address == address))
            db.execute(COORDINATOR.insert().values(address=address, seen=self._clock()))
            recent = COORDINATOR.c.seen > self._clock() - ANNOUNCED_SECONDS
            query = sql.select(COORDINATOR.c.address).where(recent).order_by(COORDINATOR.c.address)
            return list(db.execute(query).scalars())

    def _clock(self) -> sql.ColumnElement[float]:
        """The database's own time, in seconds since the epoch."""
        if self._engine.dialect.name == "sqlite":
            return (sql.func.julianday("now", type_=sql.Float) - 2440587.5) * 86400.0
        return sql.cast(sql.extract("epoch", sql.func.clock_timestamp()), sql.Float)

    # ----------------------------------------------------------------------------------------------- records
    def append(self, records: list[Record]) -> None:
        """Make records durable in one transaction.

        Raises Deposed when another leader has taken over or the database fails, ValueError for a commit that
        spends a sample again.
        """
        commits = [record for record in records if isinstance(record, CommitRecord)]
        spent = None if any(isinstance(record, Rewind) for record in records) else self._spent
        with self._leading() as db:
            if commits:  # only a leader adds any, so what this term read once stays true
                spent = merge([*(_spent_of(_commits(db)) if spent is None else spent), *_spent_of(commits)])
            for record in records:
                _insert(db, record)
        self._spent = spent

    def commits(self, since: int = 0, limit: int | None = None) -> list[CommitRecord]:
        with self._engine.connect() as db:
            return _commits(db, since, limit)

    def open_step(self, step: int) -> OpenStep:
        with self._engine.connect() as db:
            plans = [
                decode(r.record, Plan)
                for r in db.execute(sql.select(PLAN.c.record).where(PLAN.c.step == step))
            ]
            number = db.execute(
                sql.select(sql.func.max(ATTEMPT.c.number)).where(ATTEMPT.c.step == step)
            ).scalar()
            run = db.execute(sql.select(RUN.c.stage_starts, RUN.c.doubted)).one()
            rewinds = db.execute(sql.select(REWIND.c.record).order_by(REWIND.c.branch)).scalars()
            told = tuple(decode(record, Rewind) for record in rewinds)
        return OpenStep(
            plans, number or 0, msgspec.json.decode(run.stage_starts, type=tuple[int, ...]), run.doubted, told
        )

    # ------------------------------------------------------------------------------------------------ people
    def new_ticket(self, uses: int, hours: float) -> str:
        """The secret of a new ticket; only its hash is kept."""
        secret = new_secret()
        with self._engine.begin() as db:
            values = {"hash": digest(secret.encode()), "expiry": time.time() + 3600 * hours, "uses": uses}
            db.execute(TICKET.insert().values(**values))
        return secret

    def redeem(self, secret: str, island: str, contributor: str, certificate: bytes) -> bytes:
        """The island's certificate, kept: for the same key always the first one. Raises UserError with the
        objection.
        """
        key = digest(secret.encode())
        with self._engine.begin() as db:
            known = db.execute(sql.select(ISLAND).where(ISLAND.c.id == island)).one_or_none()
            if known is not None:
                if known.revoked:
                    raise UserError(f"{island} was evicted from this run: {known.revoked}")
                return bytes(known.certificate)
            ticket = db.execute(
                sql.select(TICKET).where(TICKET.c.hash == key).with_for_update()
            ).one_or_none()
            if ticket is None:
                raise UserError(
                    "the coordinator does not know this ticket; ask for a new one (`atoll invite`)"
                )
            if ticket.expiry < time.time():
                raise UserError("this ticket has expired; ask for a new one (`atoll invite`)")
            used = db.execute(sql.select(sql.func.count()).where(ISLAND.c.ticket == key)).scalar_one()
            if used >= ticket.uses:
                raise UserError(
                    f"this ticket is used up ({used} of {ticket.uses}); ask for a new one (`atoll invite`)"
                )
            values: dict[str, Any] = {"id": island, "contributor": contributor, "ticket": key, "revoked": ""}
            db.execute(ISLAND.insert().values(**values, certificate=certificate))
        return certificate

    def revoke(self, island: str, reason: str) -> None:
        """Raises UserError for an island that is not in the run."""
        with self._engine.begin() as db:
            done = db.execute(
                ISLAND.update().where(ISLAND.c.id == island).values(revoked=reason or "evicted")
            )
        if not done.rowcount:
            raise UserError(f"{island}: no such island in this run; `atoll status` lists them")

    def revoked(self, island: str) -> str:
        """Why an island is out; "" if it is not."""
        with self._engine.connect() as db:
            return db.execute(sql.select(ISLAND.c.revoked).where(ISLAND.c.id == island)).scalar() or ""

    def contributors(self) -> dict[str, str]:
        with self._engine.connect() as db:
            return {
                row.id: row.contributor for row in db.execute(sql.select(ISLAND.c.id, ISLAND.c.contributor))
            }


def _insert(db: sql.Connection, record: Record) -> None:
    match record:
        case Doubted():
            db.execute(RUN.update().values(doubted=record.is_open))
        case Plan():
            db.execute(PLAN.insert().values(step=record.step, island=record.island, record=encode(record)))
            db.execute(RUN.update().values(stage_starts=msgspec.json.encode(record.stage_starts).decode()))
        case Attempt():
            db.execute(ATTEMPT.insert().values(step=record.step, number=record.number, record=encode(record)))
        case Assembled():
            this = (ATTEMPT.c.step == record.step) & (ATTEMPT.c.number == record.number)
            db.execute(ATTEMPT.update().where(this).values(assembled=encode(record)))
        case Rewind():
            db.execute(REWIND.insert().values(branch=record.branch, record=encode(record)))
            gone = COMMIT.c.step >= record.step
            db.execute(
                ABANDONED.insert().from_select(["branch", "step", "record"], sql.select(COMMIT).where(gone))
            )
            for table, where in ((COMMIT, gone), (PLAN, sql.true()), (ATTEMPT, sql.true())):
                db.execute(table.delete().where(where))
        case CommitRecord():
            db.execute(COMMIT.insert().values(branch=record.branch, step=record.step, record=encode(record)))
            # Plans and attempts of committed steps decide nothing any more.
            db.execute(PLAN.delete().where(PLAN.c.step < record.step))
            db.execute(ATTEMPT.delete().where(ATTEMPT.c.step < record.step))


def _commits(db: sql.Connection, since: int = 0, limit: int | None = None) -> list[CommitRecord]:
    query = sql.select(COMMIT.c.record).where(COMMIT.c.step >= since).order_by(COMMIT.c.step).limit(limit)
    return [decode(row.record, CommitRecord) for row in db.execute(query)]


def _spent_of(commits: list[CommitRecord]) -> list[tuple[int, int]]:
    return [part for record in commits for _, lease in record.leases for part in lease]
