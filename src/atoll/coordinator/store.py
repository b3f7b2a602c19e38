"""The coordinator's durable log: SQLAlchemy Core over SQLite (default) or PostgreSQL.

A commit is one transaction, and only then an answer: the leader's term is checked inside it, the outer step
is the primary key, so a step is committed once whatever two leaders may believe.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sql
from sqlalchemy.event import listen
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from atoll.coordinator.effects import Doubted, OpenStep, Record
from atoll.errors import UserError
from atoll.samples import Ranges, merge
from atoll.swarm.identity import new_secret
from atoll.swarm.layout import digest
from atoll.swarm.messages import decode
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Plan, Rewind, Term, encode

_tables = sql.MetaData()
_run = sql.Table(
    "run",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("info", sql.LargeBinary, nullable=False),
    sql.Column("database_id", sql.String, nullable=False),
    sql.Column("term", sql.Integer, nullable=False),
    sql.Column("nonce", sql.String, nullable=False),
    sql.Column("stage_starts", sql.String, nullable=False),
    sql.Column("renewed", sql.Float, nullable=False),  # by the database's clock
    sql.Column("doubted", sql.Boolean, nullable=False),  # it may be an old backup
)
_coordinator = sql.Table(
    "coordinator",
    _tables,
    sql.Column("address", sql.String, primary_key=True),
    sql.Column("seen", sql.Float, nullable=False),
)
_ticket = sql.Table(
    "ticket",
    _tables,
    sql.Column("hash", sql.LargeBinary, primary_key=True),
    sql.Column("expiry", sql.Float, nullable=False),
    sql.Column("uses", sql.Integer, nullable=False),
)
_island = sql.Table(
    "island",
    _tables,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("contributor", sql.String, nullable=False),
    sql.Column("ticket", sql.LargeBinary, nullable=False),
    sql.Column("certificate", sql.LargeBinary, nullable=False),
    sql.Column("revoked", sql.String, nullable=False),
)
_plan = sql.Table(
    "plan",
    _tables,
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("island", sql.String, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)
_attempt = sql.Table(
    "attempt",
    _tables,
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
    sql.Column("assembled", sql.LargeBinary),
)
_commit, _abandoned = (
    sql.Table(
        name,
        _tables,
        sql.Column("branch", sql.Integer, primary_key=True),
        sql.Column("step", sql.Integer, primary_key=True),
        sql.Column("record", sql.LargeBinary, nullable=False),
    )
    for name in ("commit_record", "abandoned_record")
)
_rewind = sql.Table(
    "rewind",
    _tables,
    sql.Column("branch", sql.Integer, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)

ANNOUNCED_SECONDS = 600.0
IDLE_TRANSACTION_MS = 2_000


class Deposed(Exception):
    """Another coordinator has a higher term, or the database let go of this one: it must stop."""


class Store:
    """One run's database."""

    def __init__(self, url: str) -> None:
        """Open or create. Raises UserError when the database cannot be reached, or is of an older atoll."""
        self.url = url
        self._engine = _engine(url)
        listen(
            self._engine,
            "connect",
            _durable_sqlite if self._engine.dialect.name == "sqlite" else _no_idle_locks,
        )
        self.term = Term()
        self._spent: Ranges | None = None  # by all commits; None until this term's first
        try:
            _tables.create_all(self._engine)
            missing = _missing_columns(self._engine)
        except (SQLAlchemyError, ImportError) as error:
            raise UserError(f"{self._engine.url}: the database cannot be used: {error}") from error
        if missing:
            raise UserError(
                f"{self._engine.url}: made by an older atoll (it lacks {', '.join(missing)}); end "
                "that run with "
                "the version that began it, or begin a new one in another directory"
            )

    def close(self) -> None:
        self._engine.dispose()

    # ------------------------------------------------------------------------------------------------ the run
    def found(self, info: bytes) -> str:
        """Insert the run, or return what is there: the database's id. Raises UserError if it holds another
        run.
        """
        with self._engine.begin() as db:
            row = db.execute(sql.select(_run)).one_or_none()
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
                db.execute(_run.insert().values(**values))
                return str(values["database_id"])
            if bytes(row.info) != info:
                raise UserError(
                    f"{self._engine.url}: this database holds another run; give each run a directory "
                    "of its own"
                )
            return str(row.database_id)

    def info(self) -> bytes | None:
        with self._engine.connect() as db:
            row = db.execute(sql.select(_run.c.info)).one_or_none()
        return bytes(row.info) if row else None

    def begin_term(self, above: int = 0) -> Term:
        """Take the next term, higher than `above`; whoever held an earlier one can persist nothing any
        more.
        """
        nonce = new_secret()
        next_term = sql.case((_run.c.term < above, above), else_=_run.c.term) + 1
        with self._engine.begin() as db:
            db.execute(_run.update().values(term=next_term, nonce=nonce, renewed=self._clock()))
            counter = db.execute(sql.select(_run.c.term)).scalar_one()
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
        this = (_run.c.term == self.term.counter) & (_run.c.nonce == self.term.nonce)
        try:
            with self._engine.begin() as db:
                if db.execute(_run.update().where(this).values(renewed=self._clock())).rowcount != 1:
                    raise Deposed(f"term {db.execute(sql.select(_run.c.term)).scalar()} has begun elsewhere")
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
            return float(db.execute(sql.select(self._clock() - _run.c.renewed)).scalar_one())

    def reached(self) -> tuple[int, int]:
        """(counter of the term, number of commits): where either falls, somebody has restored a backup."""
        with self._engine.connect() as db:
            commits = db.execute(sql.select(sql.func.count()).select_from(_commit)).scalar_one()
            return db.execute(sql.select(_run.c.term)).scalar_one(), commits

    def announce(self, address: str) -> list[str]:
        """Keep this coordinator's address; returns those of all that were seen of late, leader or standby."""
        with self._engine.begin() as db:
            db.execute(_coordinator.delete().where(_coordinator.c.address == address))
            db.execute(_coordinator.insert().values(address=address, seen=self._clock()))
            recent = _coordinator.c.seen > self._clock() - ANNOUNCED_SECONDS
            query = sql.select(_coordinator.c.address).where(recent).order_by(_coordinator.c.address)
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
                _decoded(r.record, Plan)
                for r in db.execute(sql.select(_plan.c.record).where(_plan.c.step == step))
            ]
            number = db.execute(
                sql.select(sql.func.max(_attempt.c.number)).where(_attempt.c.step == step)
            ).scalar()
            run = db.execute(sql.select(_run.c.stage_starts, _run.c.doubted)).one()
            rewinds = db.execute(sql.select(_rewind.c.record).order_by(_rewind.c.branch)).scalars()
            told = tuple(_decoded(record, Rewind) for record in rewinds)
        return OpenStep(
            plans, number or 0, msgspec.json.decode(run.stage_starts, type=tuple[int, ...]), run.doubted, told
        )

    # ------------------------------------------------------------------------------------------------ people
    def new_ticket(self, uses: int, hours: float) -> str:
        """The secret of a new ticket; only its hash is kept."""
        secret = new_secret()
        with self._engine.begin() as db:
            values = {"hash": digest(secret.encode()), "expiry": time.time() + 3600 * hours, "uses": uses}
            db.execute(_ticket.insert().values(**values))
        return secret

    def redeem(self, secret: str, island: str, contributor: str, certificate: bytes) -> bytes:
        """The island's certificate, kept: for the same key always the first one. Raises UserError with the
        objection.
        """
        key = digest(secret.encode())
        with self._engine.begin() as db:
            known = db.execute(sql.select(_island).where(_island.c.id == island)).one_or_none()
            if known is not None:
                if known.revoked:
                    raise UserError(f"{island} was evicted from this run: {known.revoked}")
                return bytes(known.certificate)
            ticket = db.execute(
                sql.select(_ticket).where(_ticket.c.hash == key).with_for_update()
            ).one_or_none()
            if ticket is None:
                raise UserError(
                    "the coordinator does not know this ticket; ask for a new one (`atoll invite`)"
                )
            if ticket.expiry < time.time():
                raise UserError("this ticket has expired; ask for a new one (`atoll invite`)")
            used = db.execute(sql.select(sql.func.count()).where(_island.c.ticket == key)).scalar_one()
            if used >= ticket.uses:
                raise UserError(
                    f"this ticket is used up ({used} of {ticket.uses}); ask for a new one (`atoll invite`)"
                )
            values: dict[str, Any] = {"id": island, "contributor": contributor, "ticket": key, "revoked": ""}
            db.execute(_island.insert().values(**values, certificate=certificate))
        return certificate

    def revoke(self, island: str, reason: str) -> None:
        """Raises UserError for an island that is not in the run."""
        with self._engine.begin() as db:
            done = db.execute(
                _island.update().where(_island.c.id == island).values(revoked=reason or "evicted")
            )
        if not done.rowcount:
            raise UserError(f"{island}: no such island in this run; `atoll status` lists them")

    def revoked(self, island: str) -> str:
        """Why an island is out; "" if it is not."""
        with self._engine.connect() as db:
            return db.execute(sql.select(_island.c.revoked).where(_island.c.id == island)).scalar() or ""

    def contributors(self) -> dict[str, str]:
        with self._engine.connect() as db:
            return {
                row.id: row.contributor for row in db.execute(sql.select(_island.c.id, _island.c.contributor))
            }


def _insert(db: sql.Connection, record: Record) -> None:
    match record:
        case Doubted():
            db.execute(_run.update().values(doubted=record.is_open))
        case Plan():
            db.execute(_plan.insert().values(step=record.step, island=record.island, record=encode(record)))
            db.execute(_run.update().values(stage_starts=msgspec.json.encode(record.stage_starts).decode()))
        case Attempt():
            db.execute(
                _attempt.insert().values(step=record.step, number=record.number, record=encode(record))
            )
        case Assembled():
            this = (_attempt.c.step == record.step) & (_attempt.c.number == record.number)
            db.execute(_attempt.update().where(this).values(assembled=encode(record)))
        case Rewind():
            db.execute(_rewind.insert().values(branch=record.branch, record=encode(record)))
            gone = _commit.c.step >= record.step
            db.execute(
                _abandoned.insert().from_select(["branch", "step", "record"], sql.select(_commit).where(gone))
            )
            for table, where in ((_commit, gone), (_plan, sql.true()), (_attempt, sql.true())):
                db.execute(table.delete().where(where))
        case CommitRecord():
            db.execute(_commit.insert().values(branch=record.branch, step=record.step, record=encode(record)))
            # Plans and attempts of committed steps decide nothing any more.
            db.execute(_plan.delete().where(_plan.c.step < record.step))
            db.execute(_attempt.delete().where(_attempt.c.step < record.step))


def _commits(db: sql.Connection, since: int = 0, limit: int | None = None) -> list[CommitRecord]:
    query = sql.select(_commit.c.record).where(_commit.c.step >= since).order_by(_commit.c.step).limit(limit)
    return [_decoded(row.record, CommitRecord) for row in db.execute(query)]


def _spent_of(commits: list[CommitRecord]) -> list[tuple[int, int]]:
    return [part for record in commits for _, lease in record.leases for part in lease]


def _decoded(data: Any, kind: type[Any]) -> Any:
    record = decode(bytes(data))
    assert isinstance(record, kind)
    return record


def _engine(url: str) -> sql.Engine:
    try:
        return sql.create_engine(url)
    except SQLAlchemyError as error:  # the URL itself may hold a password: not repeated
        raise UserError(
            f"not the URL of a database that can be used ({error}); as in postgresql+psycopg://host/name"
        ) from error
    except ImportError as error:
        raise UserError(
            f"this database needs the Python package {error.name}, which is not installed here"
        ) from error


def _missing_columns(engine: sql.Engine) -> list[str]:
    """What a database that was made earlier lacks; `create_all` adds tables, never columns."""
    there = sql.inspect(engine)
    names = {
        table.name: {column["name"] for column in there.get_columns(table.name)}
        for table in _tables.sorted_tables
    }
    return [
        f"{t.name}.{c.name}" for t in _tables.sorted_tables for c in t.columns if c.name not in names[t.name]
    ]


def _durable_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _no_idle_locks(connection: Any, _: ConnectionPoolEntry) -> None:
    """A leader that froze inside a transaction must not keep its locks from who takes over."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_TRANSACTION_MS}")
    cursor.close()
    connection.commit()


def sqlite_url(directory: Path) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{directory / 'run.sqlite'}"
