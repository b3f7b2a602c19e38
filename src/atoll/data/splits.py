"""Which files of a folder laid out like a dataset of the Hugging Face hub belong to a split."""

import re
from collections.abc import Iterator
from pathlib import Path

from atoll.data.folder import Found, files_below, files_matching, left_out
from atoll.data.kinds import is_table, may_be_table, stem
from atoll.errors import UserError
from atoll.given import expanded, named
from atoll.recipe import Source
from atoll.words import listed

KEYWORDS = {  # what `datasets` takes for the name of a split, and the split
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
SHARD = re.compile(r"[-._]\d+-of-\d+.*", re.DOTALL)  # what follows the name of a split in a shard's name
# Where the hub's own tools put the shards of a split, whatever it is called.
HUB_SHARD = re.compile(r"data/(.+?)-\d{5}-of-\d{5}[^/]*")
BETWEEN_WORDS = re.compile(r"[-._ \d]+")


def local_files(folder: Path, source: Source) -> Found:
    """The files of a source's split in a local folder, sorted by path.

    The split of a file is the first folder on its path that is named for one, else the file's own name tells
    it, as in `data/train_sft-00000-of-00002.parquet`. Where no file names a split, all belong to `train`.
    Raises UserError where the split that is asked for could be any of several.
    """
    if source.data_files is not None:
        return files_matching(folder, str(expanded(source.data_files)), may_be_table)
    if source.config is not None and not (folder / source.config).is_dir():
        there = sorted(named(path.name) for path in folder.iterdir() if path.is_dir())
        raise UserError(f"{named(folder)}: no folder {source.config!r}; there is: {listed(there) or 'none'}")
    folder = folder / (source.config or "")
    found = files_below(folder, is_table)
    splits = {path: split_of(path.relative_to(folder)) for path in found.files}
    if source.split == "train" and not any(splits.values()):
        return found
    wanted = _words(source.split)
    named_so = [path for path in found.files if _begins(splits[path], wanted)]
    exact = [path for path in named_so if splits[path] == wanted]
    kinds = sorted({"_".join(splits[path]) for path in named_so})
    if not exact and len(kinds) > 1:
        raise UserError(
            f"{named(folder)}: split {source.split!r} could be {listed(kinds, 'or')}; set split to one of "
            "them, or name the files with data_files"
        )
    files = exact or named_so
    is_own_name = wanted and not set(wanted) & set(KEYWORDS.values())
    if not files and is_own_name:  # then any part of a path may tell it
        files = [
            path
            for path in found.files
            if not splits[path]
            and any(_contains(_words(part), wanted) for part in _parts(path.relative_to(folder)))
        ]
    taken = set(files)
    rest = [path for path in found.files if path not in taken]
    return Found(files, found.left_out + left_out(rest, f"not of split {source.split}", folder))


def split_of(path: Path) -> tuple[str, ...]:
    """The words of the split that a path names, its keyword first: () where it names none.

    A folder called exactly as a split comes before one that has it as a word, and this one before the file.
    """
    if shard := HUB_SHARD.fullmatch(path.as_posix()):
        return _words(shard[1])
    *folders, file = _parts(path)
    exact = [words for words in map(_words, folders) if len(words) == 1]
    for words in (*exact, *map(_words, folders), _words(file)):
        at = next((at for at, word in enumerate(words) if word in KEYWORDS.values()), None)
        if at is not None:
            return words[at:]
    return ()


def _parts(path: Path) -> Iterator[str]:
    """Yield the folders of a path, and the name of its file without shard numbers and suffixes."""
    yield from path.parent.parts
    yield SHARD.sub("", stem(path))


def _words(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters; a split's keyword is the split."""
    words = filter(None, BETWEEN_WORDS.split(name.lower()))
    return tuple(KEYWORDS.get(word, word) for word in words)


def _begins(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return bool(wanted) and words[: len(wanted)] == wanted


def _contains(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words)))
