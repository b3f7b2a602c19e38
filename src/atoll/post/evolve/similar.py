"""Texts that are the same, nearly the same, or those of an evaluation set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from atoll.data.markup import strings
from atoll.data.stream import parts
from atoll.errors import UserError
from atoll.given import expanded, named
from atoll.post.evolve.rules import words

SHINGLE = 3  # words of the pieces that two texts are compared by
NUM_HASHES = 128
MAX_INDEXED = 0.9  # the index has no bands for more
READABLE = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt", ".csv", ".md")


class Near:
    """Says of one text after the other whether one like it was there before."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: the share of common pieces (Jaccard) from which on two texts count as one."""
        try:
            from datasketch import MinHash, MinHashLSH
        except ModuleNotFoundError as error:
            raise UserError(
                "evolving needs datasketch; install it with: pip install 'atoll[post]'"
            ) from error
        # Copies of one: to draw its permutations takes longer than to hash a text.
        self._hash = MinHash(num_perm=NUM_HASHES).copy
        self._index = MinHashLSH(threshold=min(threshold, MAX_INDEXED), num_perm=NUM_HASHES)
        self._seen: set[str] = set()
        self._threshold = threshold
        self._hashes: dict[str, MinHash] = {}

    def is_new(self, text: str) -> bool:
        """Whether no text before was nearly the same; from now on this one counts."""
        plain = " ".join(words(text))
        if plain in self._seen:
            return False
        hashed = self._hash()
        hashed.update_batch([piece.encode() for piece in ngrams(words(text), SHINGLE)])
        # The index finds candidates; their estimated likeness decides.
        if any(
            self._hashes[str(key)].jaccard(hashed) >= self._threshold for key in self._index.query(hashed)
        ):
            return False
        self._seen.add(plain)
        self._hashes[plain] = hashed
        self._index.insert(plain, hashed)
        return True


class Contaminated:
    """The n-grams of evaluation sets, of which none may be in what is trained on."""

    def __init__(self, files: Sequence[str], length: int) -> None:
        """`length`: words of an n-gram. Raises UserError for a file that is not there or not UTF-8."""
        self._length = length
        self._ngrams: set[str] = set()
        for path in files:
            for text in _texts(expanded(path)):
                self._ngrams.update(ngrams(words(text), length))

    def has(self, text: str) -> bool:
        """Whether a text shares an n-gram with them."""
        return bool(self._ngrams) and any(
            piece in self._ngrams for piece in ngrams(words(text), self._length)
        )


def ngrams(words: Sequence[str], length: int) -> Iterator[str]:
    """The n-grams of a text; a text that is shorter than one is one itself."""
    if not words:
        return
    for start in range(max(len(words) - length, 0) + 1):
        yield " ".join(words[start : start + length])


def _texts(path: Path) -> Iterator[str]:
    """The texts of a file, or of every file of a folder: each string of JSON, or else each line."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in found if file.is_file() and (file == path or file.name.endswith(READABLE))]
    if not files:
        raise UserError(
            f"{named(path)}: no evaluation set is here to keep out of the result; give a file, or a folder "
            f"with files that end in {', '.join(READABLE)}"
        )
    for file in files:
        for number, line in enumerate(parts(file, "\n", lambda _: None), start=1):
            if ".jsonl" not in file.suffixes:
                yield line.decode(errors="replace")
            elif line.strip():
                try:
                    yield from strings(msgspec.json.decode(line))
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise UserError(f"{named(file)}: line {number} is not JSON: {error}") from error
