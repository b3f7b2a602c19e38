"""How a sentence names several things or a command, and what of a stranger's words is let in and shown.

Messages take a `Line` or a `Name`, and nothing else that people write: their doors refuse what is too long,
or holds a control character. Whoever sends a sentence of its own makes it with `one_line`, and so does
whoever shows one.
"""

import os
import shlex
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

MAX_LINE_LENGTH, MAX_NAME_LENGTH, MAX_SAMPLE_LENGTH = 300, 80, 1_000  # characters
MAX_LINK_LENGTH = 200
VISIBLE = r"\A[^\x00-\x1f\x7f-\x9f]*\Z"

Line = Annotated[str, Meta(max_length=MAX_LINE_LENGTH, pattern=VISIBLE)]  # a note, a reason
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, pattern=VISIBLE)]  # of a contributor
Sample = Annotated[str, Meta(max_length=MAX_SAMPLE_LENGTH, pattern=VISIBLE)]  # text that a model has written
# An address of the web, or nothing: a page that offers it can lead nowhere else.
LINK = r"\A(https?://[^\s\x00-\x20\x7f-\x9f\"'<>\\]+)?\Z"
Link = Annotated[str, Meta(max_length=MAX_LINK_LENGTH, pattern=LINK)]


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`; "" for no names."""
    *first, end = list(names) or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def command(*words: object) -> str:
    """A command of atoll as a shell takes it, whatever its words are: bytes that are not UTF-8 too."""
    texts = ["atoll", *map(str, words)]
    return " ".join(shlex.quote(text) if _can_be_shown(text) else _spelled(text) for text in texts)


def _can_be_shown(word: str) -> bool:
    return all(letter.isprintable() for letter in word)


def _spelled(word: str) -> str:
    r"""A word as bash and others read it in `$'...'`, with `\xNN` for each byte that is not plain."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{plain}'"


def one_line(text: str, max_length: int = MAX_LINE_LENGTH) -> str:
    """Text as one line of at most so many visible characters."""
    return visible(text if len(text) <= max_length else f"{text[: max_length - 1]}…").strip()


def visible(text: str) -> str:
    """Text on one line without whatever a terminal would obey, so that a stranger's words stay words.

    That are escape sequences, line ends, and changes of the direction of writing.
    """
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
