"""TensorBoard: a file of curves, by committed outer step, in a directory of the run's own."""

from collections.abc import Iterable
from pathlib import Path

from atoll.sinks.curves import Points
from atoll.sinks.figures import Figure

OWN_FILES = "events.out.tfevents.*"


class TensorBoard:
    """Writes curves. A follower begins at the run's first event, so what it wrote before is replaced."""

    def __init__(self, directory: Path) -> None:
        """`directory`: of this run alone."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        for path in directory.glob(OWN_FILES):
            path.unlink()
        # Made when they are imported, so that no checker knows them.
        self._event, self._summary = getattr(event_pb2, "Event"), getattr(summary_pb2, "Summary")  # noqa: B009
        self._writer = EventFileWriter(str(directory))
        self._points = Points()

    def take(self, figures: Iterable[Figure], step: int, time: float, notable: bool) -> None:
        points = self._points.until(figures, notable)
        if not points:
            return
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in points.items()]
        event = self._event(wall_time=time, step=step, summary=self._summary(value=values))
        self._writer.add_event(event)

    def close(self) -> None:
        self._writer.close()
