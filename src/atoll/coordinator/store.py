"""The coordinator's durable log: SQLAlchemy Core over SQLite (default) or PostgreSQL.

A commit is one transaction, and nobody is told of it before the transaction is durable. The leader's term is
checked inside it and the outer step is the primary key, so a step is committed once, even if two coordinators
take themselves for the leader.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sql
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError

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
    reason_of,
)
from atoll.coordinator.effects import Doubted, OpenStep, Record
from atoll.coordinator.tickets import see_to_ticket, ticket_hash_of
from atoll.errors import UserError
from atoll.samples import Ranges, merge
from atoll.swarm.address import Address, Addresses
from atoll.swarm.identity import RELAY, new_secret, role_of
from atoll.swarm.layout import digest
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Plan, Rewind, Term, decode, encode

ANNOUNCED_SECONDS = 600.0  # islands are told the coordinators that announced themselves within so long


class Deposed(Exception):
    """This coordinator must stop: another one has begun a term."""


class DatabaseFailed(Deposed):
    """This coordinator must stop: the database has failed, is full, or broke off a transaction."""


UNREADABLE = (SQLAlchemyError, DatabaseFailed)  # what reading a damaged database raises


class Enrolment(NamedTuple):
    """An island that has exchanged a ticket for a certificate."""

    contributor: str  # "": nobody was named
    evicted: str  # why it is out; "": it is not
    place: str  # where it stands, as its contributor says; "": that is not told
    link: str  # a page about the contributor; "": none


class Store:
    """One run's database."""

    def __init__(
        self,
        url: str | sql.URL,
        engine: sql.Engine | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Open the database, or create it; or take an `engine` that has. `clock`: in place of the database's.

        Raises UserError when it cannot be reached, or was made by an older atoll.
        """
        self.url = url
        self._given_clock = clock
        self._engine = engine or database.open_engine(url)
        self.term = Term()
        self._spent: Ranges | None = None  # samples spent by all commits; None: to be read before the next

    @staticmethod
    def kept(path: Path) -> "Store":
        """The database in a file, only to be read, while no coordinator runs; nothing is made or changed."""
        return Store(str(path), database.open_kept(path))

    def close(self) -> None:
        self._engine.dispose()

    def sync_level(self) -> int:
        """How hard SQLite tries to have a commit on disk before it returns: 2 stands for FULL."""
        with self._engine.connect() as db:
            return int(db.exec_driver_sql("PRAGMA synchronous").scalar_one())

    # ------------------------------------------------------------------------------------------------ the run
    def claim(self, info: bytes) -> str:
        """Make the database this run's, if it is empty; return the database's id.

        `info` is the encoded RunInfo. Raises UserError if the database holds another run.
        """
        with self._transaction() as db:
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
                    f"{self._engine.url}: this database holds another run; choose another --dir, or another "
                    "--database"
                )
            return str(row.database_id)

    def info(self) -> bytes | None:
        """The encoded RunInfo that `claim` kept; None in an empty database."""
        with self._transaction() as db:
            row = db.execute(sql.select(RUN.c.info)).one_or_none()
        return bytes(row.info) if row else None

    def begin_term(self, above: int = 0) -> Term:
        """Take the next term, higher than `above`. With an earlier one nothing can be written any more."""
        nonce = new_secret()
        next_term = sql.case((RUN.c.term < above, above), else_=RUN.c.term) + 1
        with self._transaction() as db:
            db.execute(RUN.update().values(term=next_term, nonce=nonce, renewed=self._clock()))
            counter = db.execute(sql.select(RUN.c.term)).scalar_one()
        self.term = Term(counter, nonce)
        self._spent = None
        return self.term

    def renew(self) -> None:
        """Show the standbys that this leader lives. Raises Deposed if another leads or the database fails."""
        with self._leader_transaction():
            pass

    @contextmanager
    def _leader_transaction(self) -> Generator[sql.Connection]:
        """A transaction that raises Deposed unless this coordinator leads; it renews the sign of life.

        Its first statement is a write, so that no other term can begin before the transaction ends.
        """
        this = (RUN.c.term == self.term.counter) & (RUN.c.nonce == self.term.nonce)
        with self._transaction() as db:
            if db.execute(RUN.update().where(this).values(renewed=self._clock())).rowcount != 1:
                raise Deposed(f"term {db.execute(sql.select(RUN.c.term)).scalar()} has begun elsewhere")
            yield db

    @contextmanager
    def _transaction(self) -> Generator[sql.Connection]:
        """A transaction. Raises DatabaseFailed when the database is gone, full, or breaks it off."""
        try:
            with self._engine.begin() as db:
                yield db
        except (OperationalError, InternalError, InterfaceError) as error:
            raise DatabaseFailed(
                f"{self._engine.url}: the database broke off ({reason_of(error)})"
            ) from error

    def silence_seconds(self) -> float:
        """Seconds since the leader's last sign of life, by the database's clock, which all of them share."""
        with self._transaction() as db:
            return float(db.execute(sql.select(self._clock() - RUN.c.renewed)).scalar_one())

    def term_and_num_commits(self) -> tuple[int, int]:
        """(counter of the newest term, number of commits). If either falls, a backup was restored."""
        with self._transaction() as db:
            num_commits = db.execute(sql.select(sql.func.count()).select_from(COMMIT)).scalar_one()
            return db.execute(sql.select(RUN.c.term)).scalar_one(), num_commits

    def last_reign(self) -> tuple[int, float]:
        """(counter of the newest term, its leader's last sign of life, in seconds since the epoch)."""
        with self._transaction() as db:
            row = db.execute(sql.select(RUN.c.term, RUN.c.renewed)).one()
        return row.term, row.renewed

    def announce(self, address: Address) -> Addresses:
        """Note that the coordinator at `address` lives; return the addresses of all that do, sorted.

        Both the leader and the standbys announce themselves.
        """
        with self._transaction() as db:
            db.execute(COORDINATOR.delete().where(COORDINATOR.c.address == str(address)))
            db.execute(COORDINATOR.insert().values(address=str(address), seen=self._clock()))
            recent = COORDINATOR.c.seen > self._clock() - ANNOUNCED_SECONDS
            query = sql.select(COORDINATOR.c.address).where(recent).order_by(COORDINATOR.c.address)
            return tuple(Address.parse(text) for text in db.execute(query).scalars())

    def _clock(self) -> sql.ColumnElement[float]:
        """The database's own time, in seconds since the epoch."""
        if self._given_clock is not None:
            return sql.literal(self._given_clock())
        if self._engine.dialect.name == "sqlite":
            return (sql.func.julianday("now", type_=sql.Float) - 2440587.5) * 86400.0
        return sql.cast(sql.extract("epoch", sql.func.clock_timestamp()), sql.Float)

    # ----------------------------------------------------------------------------------------------- records
    def append(self, records: list[Record]) -> None:
        """Make records durable in one transaction.

        Raises Deposed if another leads or the database fails, ValueError for a commit that spends a sample
        again, and SQLAlchemy's IntegrityError for a record whose key is taken, such as a second commit of a
        step.
        """
        commits = [record for record in records if isinstance(record, CommitRecord)]
        spent = None if any(isinstance(record, Rewind) for record in records) else self._spent
        with self._leader_transaction() as db:
            if commits:
                if spent is None:  # read once a term, since only the leader adds commits
                    spent = tuple(_spent_by(_commits(db)))
                spent = merge([*spent, *_spent_by(commits)])
            for record in records:
                _insert(db, record)
        self._spent = spent

    def commits(self, since: int = 0, limit: int | None = None) -> list[CommitRecord]:
        """The commit records from step `since` on, at most `limit`, in order."""
        with self._transaction() as db:
            return _commits(db, since, limit)

    def open_step(self, step: int) -> OpenStep:
        """What is known of outer step `step`, which comes after the last commit."""
        last_number = sql.select(sql.func.max(ATTEMPT.c.number)).where(ATTEMPT.c.step == step)
        with self._transaction() as db:
            plans = db.execute(sql.select(PLAN.c.record).where(PLAN.c.step == step)).scalars().all()
            rewinds = db.execute(sql.select(REWIND.c.record).order_by(REWIND.c.branch)).scalars().all()
            number = db.execute(last_number).scalar() or 0
            run = db.execute(sql.select(RUN.c.stage_starts, RUN.c.doubted)).one()
        return OpenStep(
            plans=[decode(record, Plan) for record in plans],
            last_number=number,
            stage_starts=msgspec.json.decode(run.stage_starts, type=tuple[int, ...]),
            doubted=run.doubted,
            rewinds=tuple(decode(record, Rewind) for record in rewinds),
        )

    # ------------------------------------------------------------------------------------ tickets and islands
    def new_ticket(self, uses: int, hours: float) -> str:
        """The secret of a new ticket for `uses` islands; the database keeps only its hash."""
        secret = new_secret()
        with self._transaction() as db:
            values = {"hash": digest(secret.encode()), "expiry": time.time() + 3600 * hours, "uses": uses}
            db.execute(TICKET.insert().values(**values, revoked=False))
        return secret

    def check_ticket(self, secret: str) -> None:
        """Raise UserError unless one more island could enrol with this ticket now; nothing is used up."""
        with self._transaction() as db:
            see_to_ticket(db, digest(secret.encode()))

    def redeem(
        self,
        secret: str,
        island: str,
        contributor: str,
        certificate: bytes,
        *,
        place: str = "",
        link: str = "",
    ) -> bytes:
        """Use a ticket for an island; return `certificate`, or the one that the island already has.

        An island that has one needs no ticket. Raises UserError if it was evicted, or the ticket is unknown,
        void, expired or used up.
        """
        ticket_hash = digest(secret.encode())
        with self._transaction() as db:
            known = db.execute(sql.select(ISLAND).where(ISLAND.c.id == island)).one_or_none()
            if known is not None:
                if known.revoked:
                    raise UserError(f"{island} was evicted from this run: {known.revoked}")
                return bytes(known.certificate)
            see_to_ticket(db, ticket_hash)
            values = {
                "id": island,
                "contributor": contributor,
                "place": place,
                "link": link,
                "ticket": ticket_hash,
                "certificate": certificate,
                "revoked": "",
            }
            db.execute(ISLAND.insert().values(**values))
        return certificate

    def certificate_of(self, island: str) -> bytes:
        """The certificate that an island was given last; empty if it has not enrolled here."""
        with self._transaction() as db:
            query = sql.select(ISLAND.c.certificate).where(ISLAND.c.id == island)
            return bytes(db.execute(query).scalar() or b"")

    def keep_certificate(self, island: str, certificate: bytes) -> None:
        """An island is given another certificate of the same key."""
        with self._transaction() as db:
            db.execute(ISLAND.update().where(ISLAND.c.id == island).values(certificate=certificate))

    def evict(self, island: str, reason: str) -> int:
        """Evict an island, and void the ticket by which it came: else it would come back under a new id.

        Returns how many others came by that ticket, and stay. Raises UserError if it is not in the run.
        """
        this = ISLAND.c.id == island
        with self._transaction() as db:
            ticket = ticket_hash_of(db, island)
            db.execute(ISLAND.update().where(this).values(revoked=reason or "evicted"))
            db.execute(TICKET.update().where(TICKET.c.hash == ticket).values(revoked=True))
            others = (ISLAND.c.ticket == ticket) & (ISLAND.c.revoked == "") & ~this
            return db.execute(sql.select(sql.func.count()).where(others)).scalar_one()

    def readmit(self, island: str) -> None:
        """Take an eviction back; the ticket is good again unless another that came by it is evicted.

        Raises UserError if the island is not in the run.
        """
        with self._transaction() as db:
            ticket = ticket_hash_of(db, island)
            db.execute(ISLAND.update().where(ISLAND.c.id == island).values(revoked=""))
            evicted = (ISLAND.c.ticket == ticket) & (ISLAND.c.revoked != "")
            if not db.execute(sql.select(sql.func.count()).where(evicted)).scalar_one():
                db.execute(TICKET.update().where(TICKET.c.hash == ticket).values(revoked=False))

    def eviction_reason(self, island: str) -> str:
        """Why an island was evicted; "" if it was not."""
        with self._transaction() as db:
            return db.execute(sql.select(ISLAND.c.revoked).where(ISLAND.c.id == island)).scalar() or ""

    def ticket_of(self, island: str) -> bytes:
        """The hash of the ticket by which an island came; empty if it has not enrolled here."""
        with self._transaction() as db:
            return bytes(db.execute(sql.select(ISLAND.c.ticket).where(ISLAND.c.id == island)).scalar() or b"")

    def evicted(self) -> tuple[str, ...]:
        """The islands that are evicted, sorted."""
        query = sql.select(ISLAND.c.id).where(ISLAND.c.revoked != "").order_by(ISLAND.c.id)
        with self._transaction() as db:
            return tuple(db.execute(query).scalars())

    def enrolled(self) -> dict[str, Enrolment]:
        """What is kept of each island that has enrolled, by its id."""
        kept = ISLAND.c.contributor, ISLAND.c.revoked, ISLAND.c.place, ISLAND.c.link
        query = sql.select(ISLAND.c.id, *kept)
        with self._transaction() as db:
            rows = db.execute(query)
            return {row.id: Enrolment(*row[1:]) for row in rows}

    def relays(self) -> set[str]:
        """Those of them whose certificate is a relay's."""
        with self._transaction() as db:
            rows = db.execute(sql.select(ISLAND.c.id, ISLAND.c.certificate)).all()
        return {row.id for row in rows if role_of(bytes(row.certificate)) == RELAY}


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
            abandoned = sql.select(COMMIT).where(COMMIT.c.step >= record.step)
            db.execute(ABANDONED.insert().from_select(["branch", "step", "record"], abandoned))
            db.execute(COMMIT.delete().where(COMMIT.c.step >= record.step))
            db.execute(PLAN.delete())
            db.execute(ATTEMPT.delete())
        case CommitRecord():
            db.execute(COMMIT.insert().values(branch=record.branch, step=record.step, record=encode(record)))
            # Plans and attempts of committed steps decide nothing any more.
            db.execute(PLAN.delete().where(PLAN.c.step < record.step))
            db.execute(ATTEMPT.delete().where(ATTEMPT.c.step < record.step))


def _commits(db: sql.Connection, since: int = 0, limit: int | None = None) -> list[CommitRecord]:
    query = sql.select(COMMIT.c.record).where(COMMIT.c.step >= since).order_by(COMMIT.c.step).limit(limit)
    return [decode(row.record, CommitRecord) for row in db.execute(query)]


def _spent_by(commits: list[CommitRecord]) -> list[tuple[int, int]]:
    return [part for record in commits for _, lease in record.leases for part in lease]
