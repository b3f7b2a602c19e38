"""Text of strangers in Markdown: shown letter by letter, whatever it would otherwise mean."""

import string
from collections.abc import Iterable, Sequence

from atoll.words import one_line

NO_BREAK = "&nbsp;"
PLAIN = set(string.ascii_letters + string.digits + " ,'")


def text(words: str) -> str:
    """Words as text on one line: no markup, link, tag or mention comes of them.

    What is punctuation in ASCII becomes a character reference, which Markdown never reads as structure.
    """
    return "".join(
        letter if letter in PLAIN or ord(letter) >= 128 else f"&#{ord(letter)};" for letter in one_line(words)
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; numbers stand right, and are not parted from their %."""
    rows = list(rows)
    right = [bool(rows) and all(_is_number(row[at]) for row in rows) for at in range(len(head))]
    rule = ["---:" if is_right else "---" for is_right in right]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
    return "\n".join(lines).replace(" % |", f"{NO_BREAK}% |")


def _is_number(cell: str) -> bool:
    return bool(cell) and cell.replace(",", "").replace(".", "").replace("%", "").strip().isdigit()
