"""The terminal: lines for what happens, and below them at most one picture, which is kept up to date."""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import track
from rich.spinner import Spinner
from rich.text import Text

from atoll.words import visible

FILE_WIDTH = 200  # columns for tables that go to a file or a pipe, where nothing need be cut
REFRESHES_PER_SECOND = 4


class Terminal:
    """Prints for people. As a context manager it leaves nothing on the screen but its lines."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        """`quiet`: print only what somebody waits for."""
        self.console = console or Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = FILE_WIDTH
        self.quiet = quiet
        self._live: Live | None = None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    @property
    def is_live(self) -> bool:
        """Whether a picture can be kept up to date here."""
        return self.console.is_terminal and not self.quiet

    def say(self, text: str) -> None:
        """A line about what happens; none where it shall be quiet."""
        if not self.quiet:
            self.console.print(_text(text, "dim"))

    def tell(self, text: str) -> None:
        """A line that somebody waits for."""
        self.console.print(_text(text))

    def show(self, picture: RenderableType) -> None:
        """Put a picture below all lines, in place of the last one; only on a terminal."""
        if not self.is_live:
            return
        if self._live is None:
            self._live = Live(
                picture, console=self.console, refresh_per_second=REFRESHES_PER_SECOND, transient=True
            )
            self._live.start()
        else:
            self._live.update(picture)

    def busy(self, text: str) -> None:
        """A picture: one line that moves."""
        self.show(Spinner("dots", Text(visible(text), no_wrap=True, overflow="ellipsis")))

    def clear(self) -> None:
        """Take the picture away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def track(self, seeds: range, what: str) -> Iterable[int]:
        """The seeds, one by one, with a bar that is gone at the end."""
        return track(seeds, what, console=self.console, transient=True)


def _text(text: str, style: str = "") -> Text:
    """Text of ours, in lines, with the words of strangers in it."""
    return Text("\n".join(map(visible, text.split("\n"))), style=style)
