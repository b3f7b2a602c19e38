"""The coordinator's database: its tables, and how it is opened so that a commit is durable."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.event import listen
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from atoll.errors import UserError
from atoll.words import one_line

IDLE_TRANSACTION_MILLISECONDS = 2_000  # after it PostgreSQL breaks off the transaction of a frozen leader

TABLES = sql.MetaData()
RUN = sql.Table(
    "run",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("info", sql.LargeBinary, nullable=False),
    sql.Column("database_id", sql.String, nullable=False),
    sql.Column("term", sql.Integer, nullable=False),
    sql.Column("nonce", sql.String, nullable=False),
    sql.Column("stage_starts", sql.String, nullable=False),
    sql.Column("renewed", sql.Float, nullable=False),  # the leader's last sign of life; the database's clock
    sql.Column("doubted", sql.Boolean, nullable=False),  # this database may be an old backup
)
COORDINATOR = sql.Table(
    "coordinator",
    TABLES,
    sql.Column("address", sql.String, primary_key=True),
    sql.Column("seen", sql.Float, nullable=False),
)
TICKET = sql.Table(
    "ticket",
    TABLES,
    sql.Column("hash", sql.LargeBinary, primary_key=True),
    sql.Column("expiry", sql.Float, nullable=False),
    sql.Column("uses", sql.Integer, nullable=False),
    sql.Column("revoked", sql.Boolean, nullable=False),  # an island that came by it was evicted
)
ISLAND = sql.Table(
    "island",
    TABLES,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("contributor", sql.String, nullable=False),
    sql.Column("place", sql.String, nullable=False),  # where it stands, as its contributor says; "": not told
    sql.Column("link", sql.String, nullable=False),  # a page about the contributor; "": none
    sql.Column("ticket", sql.LargeBinary, nullable=False),
    sql.Column("certificate", sql.LargeBinary, nullable=False),
    sql.Column("revoked", sql.String, nullable=False),  # why it was evicted; "": it was not
)
PLAN = sql.Table(
    "plan",
    TABLES,
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("island", sql.String, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)
ATTEMPT = sql.Table(
    "attempt",
    TABLES,
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
    sql.Column("assembled", sql.LargeBinary),
)
COMMIT = sql.Table(
    "commit_record",
    TABLES,
    sql.Column("branch", sql.Integer, primary_key=True),
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)
ABANDONED = COMMIT.to_metadata(TABLES, name="abandoned_record")  # commits that a rewind has undone
REWIND = sql.Table(
    "rewind",
    TABLES,
    sql.Column("branch", sql.Integer, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)


def sqlite_path(directory: Path) -> Path:
    """The database file in a run's coordinator directory."""
    return directory / "run.sqlite"


def sqlite_url(directory: Path) -> sql.URL:
    """The URL of a database file in a run's coordinator directory; makes the directory.

    Not as text, in which a `?` or a `%20` of the directory's name would mean something else.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return sql.URL.create("sqlite", database=str(sqlite_path(directory)))


def open_kept(path: Path) -> sql.Engine:
    """Open a database file only to read it; nothing is made or changed."""
    return sql.create_engine("sqlite://", creator=lambda: _reader(path))


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that reads, also where SQLite may not make the files that it keeps beside a database.

    Then it can do without them, as long as they hold nothing: a backup, or a disk that is read-only.
    """
    where = path.absolute().as_uri()
    reader = sqlite3.connect(f"{where}?mode=ro", uri=True)
    try:
        reader.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        reader.close()
        return sqlite3.connect(f"{where}?mode=ro&immutable=1", uri=True)
    return reader


def reason_of(error: Exception) -> str:
    """What the database itself says, on one line: SQLAlchemy adds the statement, and a page about it."""
    return one_line(str(getattr(error, "orig", None) or error).partition("\n")[0])


def open_engine(url: str | sql.URL) -> sql.Engine:
    """Open a database, and make the tables that it lacks.

    Raises UserError when the database cannot be used, or was made by an older atoll.
    """
    engine = _engine(url)
    listen(engine, "connect", _durable_sqlite if engine.dialect.name == "sqlite" else _no_idle_locks)
    try:
        TABLES.create_all(engine)
        missing = _missing_columns(engine)
    except (SQLAlchemyError, ImportError) as error:
        is_disk = engine.dialect.name == "sqlite" and isinstance(error, OperationalError)
        advice = "; is the disk full, or may this user not write there?" if is_disk else ""
        raise UserError(f"{engine.url}: the database cannot be used: {reason_of(error)}{advice}") from error
    if missing:
        raise UserError(
            f"{engine.url}: made by an older atoll (it lacks {', '.join(missing)}); continue that run with "
            "the version that began it, or begin a new run in another directory"
        )
    return engine


def _engine(url: str | sql.URL) -> sql.Engine:
    try:
        return sql.create_engine(url)
    except SQLAlchemyError as error:  # the URL itself may hold a password: it is not repeated
        raise UserError(
            f"--database: not the URL of a database that can be used ({error}); "
            "write it as in postgresql+psycopg://host/name"
        ) from error
    except ImportError as error:
        raise UserError(
            f"--database: it needs the Python package {error.name}, which is not installed here"
        ) from error


def _missing_columns(engine: sql.Engine) -> list[str]:
    """The columns that an older database lacks; `create_all` adds tables, never columns."""
    inspector = sql.inspect(engine)
    missing: list[str] = []
    for table in TABLES.sorted_tables:
        existing = {column["name"] for column in inspector.get_columns(table.name)}
        missing += [f"{table.name}.{column.name}" for column in table.columns if column.name not in existing]
    return missing


def _durable_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    """Make a commit return only once it is on disk, and a second writer wait instead of failing."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _no_idle_locks(connection: Any, _: ConnectionPoolEntry) -> None:
    """Take its locks from a leader that freezes inside a transaction, so that another one can take over."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_TRANSACTION_MILLISECONDS}")
    cursor.close()
    connection.commit()
