"""What `atoll prepare` says: a line for each phase and source, kept up to date on a terminal."""

from typing import Any

from atoll.terminal.figures import duration, human
from atoll.terminal.terminal import Terminal

MEGA = 1_000_000


class Preparing:
    """Shows progress, then what came of it."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._phase = ("", "")

    def report(self, progress: Any) -> None:
        """How far preparing is (`data.progress.Progress`)."""
        p = progress
        text = f"{p.phase} of {p.source}: {p.num_documents:,} documents, {p.num_bytes / MEGA:.1f} MB"
        text += f" at {p.bytes_per_second / MEGA:.1f} MB/s"
        text += f", {duration(p.seconds_left)} left" if p.seconds_left else ""
        if self._terminal.is_live:
            self._terminal.busy(text)
        elif (p.phase, p.source) != self._phase:
            self._terminal.say(f"{p.phase} of {p.source} …")
        self._phase = (p.phase, p.source)

    def done(self, manifest: Any) -> None:
        """What there is (`data.manifest.Manifest`)."""
        self._terminal.clear()
        tokens = sum(source.num_tokens("train") for source in manifest.sources.values())
        heldout = sum(source.num_tokens("heldout") for source in manifest.sources.values())
        self._terminal.tell(
            f"prepared: {human(tokens)} tokens to train on, {human(heldout)} held out, "
            f"vocabulary of {manifest.vocab_size:,}"
        )
        for note in manifest.notes():
            self._terminal.tell(note)
