"""What is never trained on: documents chosen by their hash, or the end of a source that has few documents."""

from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3

from atoll.data.rows import Document
from atoll.data.sources import Place, SourceReader
from atoll.data.tokenizer import SEAM

MAX_FEW = 100_000  # a source of more documents always goes by their hashes
MAX_TO_SEAM = 1000  # characters that a cut may move, so as not to divide a word


class Cut(NamedTuple):
    """Where the held-out end of a source begins."""

    place: Place  # after the document that is cut
    character: int  # of that document, from which on it is held out

    def parts(self, text: str, place: Place) -> Iterator[tuple[str, bool]]:
        """Yield (text, whether it is held out) for each part of the document that ends at `place`."""
        if place != self.place:
            yield text, place > self.place
            return
        seam = SEAM.search(text, self.character, self.character + MAX_TO_SEAM) if self.character else None
        at = seam.start() if seam else self.character
        for part, is_end in ((text[:at], False), (text[at:], True)):
            if part.strip():
                yield part, is_end


def is_heldout(text: bytes, fraction: float) -> bool:
    """Whether a document (its UTF-8) is held out; its hash decides, so every machine agrees."""
    return int.from_bytes(blake3(text).digest(8), "big") < fraction * 2**64


def find_cut(reader: SourceReader, fraction: float, *, is_whole: bool = False) -> Cut | None:
    """Where the held-out end of a source begins; None where its documents are held out by their hashes.

    That is so once both a document to train on and one to hold out have been read. A source that ends before,
    as one of a single document does, is held out from the last `fraction` of its characters on. It reads the
    source from its beginning. `is_whole`: documents are rows, which are held out whole, so from the one on in
    which the cut would lie. Raises UserError like the reader.
    """
    sizes: list[tuple[Place, int]] = []  # of each document: (place after it, characters)
    seen: set[bool] = set()
    for item in reader:
        if isinstance(item, Document):
            seen.add(is_heldout(item.text.encode(), fraction))
            if len(seen) == 2 or len(sizes) == MAX_FEW:
                return None
            sizes.append((reader.place, len(item.text.rstrip())))
    remaining = round(fraction * sum(size for _, size in sizes))
    for place, size in reversed(sizes):
        if 0 < remaining <= size:
            return Cut(place, 0 if is_whole else size - remaining)
        remaining -= size
    return None
