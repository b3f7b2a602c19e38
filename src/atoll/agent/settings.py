"""How one agent takes part, and the small facts that its directory keeps for it."""

from pathlib import Path

import msgspec

from atoll.files import write_atomic
from atoll.metrics import Rates
from atoll.swarm.address import Address, Addresses
from atoll.swarm.records import Term

TERM, COORDINATORS = "term.json", "coordinators.json"


BYTES_PER_MBIT = 1e6 / 8


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one agent takes part."""

    directory: Path
    coordinators: Addresses = ()  # where the run's host is, the one that worked first; a member knows them
    contributor: str = ""
    place: str = ""  # where it stands, for the map of the model card; told when it enrols
    link: str = ""  # a page about the contributor; told when it enrols
    relay: bool = False
    listen: Address = Address("0.0.0.0", 0)
    # Where peers reach it, besides at the host that it dials from; a port of 0: the one that it listens on.
    advertise: Addresses = ()
    dial_only: bool = False
    metered: bool = False  # it gives no state and no data to others: what it sends costs
    upload_mbit: float | None = None  # that it may use of its link; None: all of it
    download_mbit: float | None = None
    checkpoint_dirs: tuple[Path, ...] = ()  # where a state 0 may lie, besides our own
    data_dirs: tuple[Path, ...] = ()  # where the prepared data may lie; the last is where it is put
    private_dir: Path = Path("private")  # where its parts of partitioned sources lie

    @property
    def caps(self) -> Rates:
        """What of its link it may use; 0: all of it."""
        return Rates(
            up_bytes_per_second=(self.upload_mbit or 0.0) * BYTES_PER_MBIT,
            down_bytes_per_second=(self.download_mbit or 0.0) * BYTES_PER_MBIT,
        )


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
