"""How one agent takes part, and the small facts that its directory keeps for it."""

from pathlib import Path

import msgspec

from atoll.files import write_atomic
from atoll.swarm.address import Address, Addresses
from atoll.swarm.records import Term

TERM, COORDINATORS = "term.json", "coordinators.json"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one agent takes part."""

    directory: Path
    coordinators: Addresses = ()  # where the run's host is, the one that worked first; a member knows them
    contributor: str = ""
    place: str = ""  # where it stands, for the map of the model card; told when it enrols
    relay: bool = False
    listen: Address = Address("0.0.0.0", 0)
    # Where peers reach it, besides at the host that it dials from; a port of 0: the one that it listens on.
    advertise: Addresses = ()
    dial_only: bool = False
    checkpoint_dirs: tuple[Path, ...] = ()  # where a state 0 may lie, besides our own
    data_dirs: tuple[Path, ...] = ()  # where the prepared data may lie; the last is where it is put
    private_dir: Path = Path("private")  # where its parts of partitioned sources lie


def keep_term(directory: Path, term: Term) -> None:
    """Remember the highest term seen, durably: a leader of the past must not be believed after a restart."""
    write_atomic(directory / TERM, msgspec.json.encode(term))


def load_term(directory: Path) -> Term:
    path = directory / TERM
    return msgspec.json.decode(path.read_bytes(), type=Term) if path.exists() else Term()


def keep_coordinators(directory: Path, addresses: Addresses) -> None:
    """Remember where else coordinators of this run are."""
    write_atomic(directory / COORDINATORS, msgspec.json.encode(addresses))


def load_coordinators(directory: Path) -> Addresses:
    path = directory / COORDINATORS
    return msgspec.json.decode(path.read_bytes(), type=Addresses) if path.exists() else ()
