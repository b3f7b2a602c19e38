"""The coordinator's database: its tables, and how SQLite and PostgreSQL are opened so that commits are
durable.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.event import listen
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from atoll.errors import UserError

IDLE_TRANSACTION_MS = 2_000  # PostgreSQL: after so long a frozen leader's transaction is broken off

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
    sql.Column("renewed", sql.Float, nullable=False),  # by the database's clock
    sql.Column("doubted", sql.Boolean, nullable=False),  # it may be an old backup
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
)
ISLAND = sql.Table(
    "island",
    TABLES,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("contributor", sql.String, nullable=False),
    sql.Column("ticket", sql.LargeBinary, nullable=False),
    sql.Column("certificate", sql.LargeBinary, nullable=False),
    sql.Column("revoked", sql.String, nullable=False),
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
COMMIT, ABANDONED = (
    sql.Table(
        name,
        TABLES,
        sql.Column("branch", sql.Integer, primary_key=True),
        sql.Column("step", sql.Integer, primary_key=True),
        sql.Column("record", sql.LargeBinary, nullable=False),
    )
    for name in ("commit_record", "abandoned_record")
)
REWIND = sql.Table(
    "rewind",
    TABLES,
    sql.Column("branch", sql.Integer, primary_key=True),
    sql.Column("record", sql.LargeBinary, nullable=False),
)


def sqlite_url(directory: Path) -> str:
    """The default: a database file in a run's coordinator directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{directory / 'run.sqlite'}"


def open_engine(url: str) -> sql.Engine:
    """An engine on a database that has all tables, made where they were not there.

    Raises UserError when the database cannot be used, or was made by an older atoll.
    """
    engine = _engine(url)
    listen(engine, "connect", _durable_sqlite if engine.dialect.name == "sqlite" else _no_idle_locks)
    try:
        TABLES.create_all(engine)
        missing = _missing_columns(engine)
    except (SQLAlchemyError, ImportError) as error:
        raise UserError(f"{engine.url}: the database cannot be used: {error}") from error
    if missing:
        raise UserError(
            f"{engine.url}: made by an older atoll (it lacks {', '.join(missing)}); end that run with the "
            "version that began it, or begin a new one in another directory"
        )
    return engine


def _engine(url: str) -> sql.Engine:
    try:
        return sql.create_engine(url)
    except SQLAlchemyError as error:  # the URL itself may hold a password: it is not repeated
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
        for table in TABLES.sorted_tables
    }
    return [
        f"{t.name}.{c.name}" for t in TABLES.sorted_tables for c in t.columns if c.name not in names[t.name]
    ]


def _durable_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    """A commit is on the disk when it returns, and a second writer waits instead of failing."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _no_idle_locks(connection: Any, _: ConnectionPoolEntry) -> None:
    """A leader that froze inside a transaction must not keep its locks from the one that takes over."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_TRANSACTION_MS}")
    cursor.close()
    connection.commit()
