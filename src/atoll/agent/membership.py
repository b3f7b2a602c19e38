"""An island's directory: who it is, which run it belongs to, where that run's coordinator is."""

from pathlib import Path

import msgspec

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.files import write_atomic
from atoll.swarm.address import Addresses
from atoll.swarm.identity import Credentials, Ticket, common_name, is_expired, island_key, role_of
from atoll.swarm.messages import Enroll, Enrolled, TicketRefused
from atoll.swarm.records import RunInfo
from atoll.swarm.transport import NotUnderstood


class Membership(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What enrolment gave, kept in the island's directory."""

    addresses: Addresses  # of the run's host, the one that worked first
    run_id: str
    certificate: bytes
    authority: bytes
    run: RunInfo

    def credentials(self, directory: Path) -> Credentials:
        _, key, _ = island_key(directory)
        return Credentials(key, self.certificate, self.authority)

    @property
    def island(self) -> str:
        return Credentials(b"", self.certificate, b"").name


def load(directory: Path) -> Membership | None:
    """The membership kept in a directory; None if there is none. Raises UserError when it is damaged."""
    path = directory / "membership.msgpack"
    if not path.exists():
        return None
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Membership)
    except msgspec.DecodeError as error:
        raise UserError(
            f"{path}: damaged ({error}); delete {directory} and join again with a ticket"
        ) from error


async def enrol(
    directory: Path,
    ticket: Ticket,
    contributor: str,
    *,
    place: str = "",
    link: str = "",
    relay: bool = False,
) -> Membership:
    """Turn a ticket into a membership, or give back the one kept here, whose certificate is made anew where
    it has expired; idempotent.

    `contributor`, `place` and `link` are told to the run's host, once, for good. A `relay` never takes part.

    Raises UserError when the ticket is not good or the directory belongs to another run; TransportError when
    the coordinator cannot be reached.
    """
    known = load(directory)
    if known is not None and known.run_id == ticket.run_id:
        addresses = tuple(host.for_members for host in ticket.hosts)
        if sorted(known.addresses) != sorted(addresses):
            known = msgspec.structs.replace(known, addresses=addresses)
            _keep(directory, known)
        if not is_expired(known.certificate) and role_of(known.certificate):
            return known
    from atoll.swarm.grpc_transport import enrolment_line  # a trainer, which only loads, does without gRPC

    _, _, csr = island_key(directory)
    line = await enrolment_line(ticket)
    try:
        await line.stream.send(
            Enroll(
                secret=ticket.secret,
                csr=csr,
                contributor=contributor,
                place=place,
                link=link,
                relay=relay,
            )
        )
        enrolled, _ = await line.stream.receive(10.0)
        if isinstance(enrolled, TicketRefused):
            raise UserError(enrolled.reason)
        if not isinstance(enrolled, Enrolled):
            raise NotUnderstood(f"{line.host.for_strangers}: answered something else than a certificate")
    finally:
        await line.stream.close()
        await line.close()
    if known is not None and known.run_id != ticket.run_id:
        ours, theirs = (recipes.parse(run.recipe, run.run_id) for run in (known.run, enrolled.run))
        keys = ", ".join(recipes.differing_keys(ours, theirs)) or "none: the same recipe, another run"
        raise UserError(
            f"{directory} belongs to run {known.run_id}, the ticket to {ticket.run_id} (keys that differ: "
            f"{keys}); join in another directory (--dir), or delete this one"
        )
    membership = Membership(
        addresses=tuple(h.for_members for h in sorted(ticket.hosts, key=lambda host: host != line.host)),
        run_id=ticket.run_id,
        certificate=enrolled.certificate,
        authority=line.authority,
        run=enrolled.run,
    )
    _keep(directory, membership)
    return membership


def renewed(directory: Path, certificate: bytes) -> Membership:
    """The membership kept in a directory, with another certificate of the same key from now on."""
    known = load(directory)
    if known is None or common_name(certificate) != known.island:
        raise UserError(f"{directory}: no membership is kept here that this certificate is for")
    membership = msgspec.structs.replace(known, certificate=certificate)
    _keep(directory, membership)
    return membership


def _keep(directory: Path, membership: Membership) -> None:
    write_atomic(directory / "membership.msgpack", msgspec.msgpack.encode(membership))
