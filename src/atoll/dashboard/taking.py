"""Whether an island takes part in the open outer step, and why, or why not."""

from atoll.dashboard.island import Island
from atoll.dashboard.reducer import Reducer
from atoll.status import IslandStatus, RunStatus
from atoll.words import one_line

Taking = tuple[bool | None, str]  # None: that is not known
UNKNOWN = "not known: only its coordinator can say, and it does not answer"


def taking(reducer: Reducer, key: str, island: Island, now: IslandStatus | None) -> Taking:
    """By the events first, and by what its coordinator says `now` (None: nothing)."""
    if island.relay:
        return False, "a relay reduces and gives state, and does not train"
    if reducer.finished:
        return False, "the run is finished"
    if not island.alive:
        return False, "it is not here"
    if reducer.is_past:
        return None, UNKNOWN
    attempt = reducer.attempt
    if attempt is not None and key in attempt.participants:
        return True, f"its work is being reduced, attempt {attempt.number}"
    if key in reducer.excluded:
        return False, reducer.excluded[key]
    if attempt is not None and key in attempt.left_out:
        return False, "the others did not wait for its work any longer"
    return _told(now, reducer.status)


def _told(now: IslandStatus | None, status: RunStatus | None) -> Taking:
    if now is None or status is None:
        return None, UNKNOWN
    if now.island in status.proposed:
        return True, "its work is done, and waits for that of the others"
    if now.planned_inner_steps and not now.note.startswith("left out"):
        return True, f"it trains: {now.inner_step} of {now.planned_inner_steps} inner steps"
    return False, one_line(now.note) or "it has no plan in this step yet"
