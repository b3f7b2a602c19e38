"""`atoll dashboard RUN --html FILE`: the page as one file that can be kept, or sent to somebody."""

import time
from pathlib import Path

import msgspec

from atoll.dashboard import atlas, page, shown
from atoll.dashboard.parts import encoded
from atoll.dashboard.source import Source
from atoll.dashboard.view import NAMES
from atoll.errors import UserError
from atoll.files import write_atomic
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.swarm import messages as m

MAX_HISTORIES = 100  # islands of which the file keeps the curves


def write(run_dir: RunDir, path: Path) -> int:
    """Write the file, whole or not at all; return how many events it shows.

    Raises UserError where there is no run, and where the events file is none of atoll's; DiskError.
    """
    source = Source(run_dir)
    source.read_all()
    try:
        source.reducer.see(operate.answered(run_dir, m.StatusRequest(), m.StatusReply).status)
    except UserError:  # nobody hosts it now, or not from here: the events tell enough
        source.reducer.see(None)
    write_atomic(path, page.kept_page(kept(source)))
    return source.num_events


def kept(source: Source) -> bytes:
    """All parts of the view, the world, and the islands' curves, as JSON."""
    parts = {name: msgspec.Raw(encoded(source, name)) for name in NAMES}
    first = [row.island for row in shown.islands(source.reducer)[:MAX_HISTORIES]]
    histories = {island: source.reducer.history(island) for island in first}
    world = {"width": atlas.WIDTH, "height": atlas.height(), "land": atlas.outline()}
    return msgspec.json.encode({**parts, "histories": histories, "world": world, "kept_at": time.time()})
