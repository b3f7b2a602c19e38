"""What others have published of known models, with where it stands (`published.toml`)."""

import tomllib
from importlib.resources import files

import msgspec

FILE = "published.toml"


class Source(msgspec.Struct, frozen=True):
    """Where figures were published."""

    text: str
    url: str


class Row(msgspec.Struct, frozen=True):
    """The scores of one model."""

    model: str
    source: str  # a key of `Published.sources`
    scores: dict[str, float]  # in percent, by lm-eval's name of the task
    chat: bool = False  # trained to answer in a conversation


class Published(msgspec.Struct, frozen=True):
    """All of the file."""

    sources: dict[str, Source]
    rows: tuple[Row, ...]

    def of(self, tasks: set[str], chat: bool) -> list[Row]:
        """The rows of base models, or of models that chat, that have a score for one of these tasks."""
        return [row for row in self.rows if row.chat == chat and tasks & row.scores.keys()]


def load() -> Published:
    """The figures that ship with atoll."""
    tree = tomllib.loads(files("atoll.evaluate").joinpath(FILE).read_text("utf-8"))
    return msgspec.convert(tree, Published)
