"""Where a view comes from: a run's events file, which is followed, and its coordinator, which is asked."""

from pathlib import Path

from atoll.dashboard.about import about
from atoll.dashboard.reducer import Reducer
from atoll.errors import UserError
from atoll.events.log import EventReader
from atoll.run.directory import RunDir

CHUNK_BYTES = 4 << 20  # of the events file that are read at once; a longer line is none of ours


class Source:
    """Follows the events of a run into a reducer."""

    def __init__(self, run_dir: RunDir) -> None:
        """Raises UserError where no run is, or its recipe cannot be read."""
        if not run_dir.events.exists() and not run_dir.recipe.is_file():
            raise UserError(
                f"{run_dir.path}: no run here: neither {run_dir.events.name} nor {run_dir.recipe.name}; name "
                "the directory of a run on the machine that hosts it, or a copy of it"
            )
        self.run_dir = run_dir
        self._begin()

    def _begin(self) -> None:
        self.reader = EventReader(self.run_dir.events)
        self.reducer = Reducer(about(self.run_dir))
        self.num_events = self.num_senseless = 0

    def advance(self) -> int:
        """Reduce what has come; return how many events that were. One chunk at most: ask again."""
        size = _size(self.run_dir.events)
        if size < self.reader.offset:  # the file was removed, or replaced by a shorter one
            self._begin()
        events = self.reader.read(CHUNK_BYTES)
        for event in events:
            try:
                self.reducer.take(event)
            except (
                ValueError,
                OverflowError,
            ):  # a step or a count beyond all sense: no coordinator wrote that
                self.num_senseless += 1
        self.num_events += len(events)
        return len(events)

    @property
    def complaint(self) -> str:
        """What of the file was not shown, for people; "" if all is."""
        more = f"{self.num_senseless} events name figures that no run can have, and are left out"
        said = [self.reader.complaint, *([more] if self.num_senseless else [])]
        return "; ".join(filter(None, said))

    @property
    def reading(self) -> float | None:
        """The share of the file that is read; None where all is, but for a last line that is not whole."""
        size = _size(self.run_dir.events)
        left = size - self.reader.offset
        return self.reader.offset / size if left > CHUNK_BYTES else None

    @property
    def is_foreign(self) -> bool:
        """Whether there are lines in the file, and none of them is an event of atoll."""
        return not self.num_events and bool(self.reader.num_torn or self.reader.num_unknown)

    def read_all(self) -> None:
        """Read the file to its end. Raises UserError where none of its lines is an event of atoll."""
        before = -1
        while self.reader.offset != before:
            before = self.reader.offset
            self.advance()
        if self.is_foreign:
            raise UserError(
                f"{self.run_dir.events}: not an events file of atoll: none of its lines is an event"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
