"""What the files of a coordinator know of its run while nobody hosts it."""

import contextlib

from atoll import recipe as recipes
from atoll.coordinator.consumed import count_nothing
from atoll.coordinator.database import reason_of, sqlite_path
from atoll.coordinator.status import kept_run, kept_status
from atoll.coordinator.store import UNREADABLE, Store
from atoll.data.manifest import Manifest
from atoll.data.mixture import Mixture
from atoll.errors import UserError
from atoll.events.log import NUM_NOTABLE, EventReader, newest_evaluated, open_alerts
from atoll.run.directory import RunDir
from atoll.status import RunStatus


def kept_in(run_dir: RunDir) -> RunStatus | None:
    """The run by its database, which is only read, and its events file.

    None where no coordinator has run, or its database is elsewhere. Raises UserError for one that cannot be
    read.
    """
    path = sqlite_path(run_dir.coordinator)
    if not path.is_file():
        return None
    events = EventReader(run_dir.events).read()
    notable = [event for event in events if not event.routine]
    with contextlib.closing(Store.kept(path)) as store:
        try:
            if (run := kept_run(store)) is None:
                return None
            recipe = recipes.parse(run.recipe, run.run_id)
            has_own_module = bool(recipe.model.own)  # its samples are of no source
            count = count_nothing if has_own_module else Mixture.of(recipe, Manifest.load(run_dir.data)).count
            return kept_status(
                store, run, count, notable[-NUM_NOTABLE:], newest_evaluated(events), open_alerts(events)
            )
        except UNREADABLE as error:
            raise UserError(f"{path}: this database cannot be read: {reason_of(error)}") from error
