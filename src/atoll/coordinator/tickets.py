"""Tickets in the coordinator's database: whether one is good, and by which an island came."""

import time

import sqlalchemy as sql

from atoll.coordinator.database import ISLAND, TICKET
from atoll.errors import UserError


def see_to_ticket(db: sql.Connection, ticket_hash: bytes) -> None:
    """Raise UserError if a ticket is unknown, void, expired or used up; else it is locked."""
    query = sql.select(TICKET).where(TICKET.c.hash == ticket_hash).with_for_update()
    ticket = db.execute(query).one_or_none()
    if ticket is None:
        raise UserError("this run does not know this ticket; ask for a new one (`atoll invite`)")
    if ticket.revoked:
        raise UserError(
            "this ticket is void, since an island that came by it was evicted; ask for a new one "
            "(`atoll invite`)"
        )
    if ticket.expiry < time.time():
        raise UserError("this ticket has expired; ask for a new one (`atoll invite`)")
    used = db.execute(sql.select(sql.func.count()).where(ISLAND.c.ticket == ticket_hash)).scalar_one()
    if used >= ticket.uses:
        raise UserError(
            f"this ticket is used up ({used} of {ticket.uses}); ask for a new one (`atoll invite`)"
        )


def ticket_hash_of(db: sql.Connection, island: str) -> bytes:
    """The hash of the ticket by which an island came. Raises UserError if it is not in the run."""
    ticket = db.execute(sql.select(ISLAND.c.ticket).where(ISLAND.c.id == island)).scalar()
    if ticket is None:
        raise UserError(f"{island}: no such island in this run; `atoll status` lists them")
    return bytes(ticket)
