"""How a sentence names several things, or a command."""

import os
import shlex
from collections.abc import Iterable


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`; "" for no names."""
    *first, end = list(names) or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def command(words: Iterable[str]) -> str:
    """A command that a shell takes as it stands, whatever its words are: names that are not UTF-8 too."""
    return " ".join(shlex.quote(word) if _can_be_shown(word) else _spelled(word) for word in words)


def _can_be_shown(word: str) -> bool:
    return all(letter.isprintable() for letter in word)


def _spelled(word: str) -> str:
    r"""A word as bash and others read it in `$'...'`, with `\xNN` for each byte that is not plain."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{plain}'"
