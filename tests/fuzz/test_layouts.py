"""Folders with any names, links and files: every file is read or told of, or the folder is refused."""

import json
import os
import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from atoll.data.kinds import is_table
from atoll.data.sources import SourceReader
from atoll.errors import UserError
from atoll.recipe import Source

WORDS = [
    "train",
    "test",
    "dev",
    "data",
    "sft",
    "train_sft",
    "a",
    "B",
    "é",
    "[x]",
    "*",
    "caf\udce9",
    "main",
    "00",
]
SUFFIXES = [".jsonl", ".JSONL", ".jsonl.gz", ".json.gz", ".parquet", ".txt", ".py", ".json", ".md", ""]
SHARDS = ["", "-00000-of-00002", "-00001-of-00002", ".00000-of-00010", "-7"]
NAMES = st.builds("".join, st.tuples(*map(st.sampled_from, (WORDS, SHARDS, SUFFIXES))))
FOLDERS = st.lists(st.sampled_from(WORDS), max_size=3)
ENTRIES = st.lists(
    st.tuples(
        FOLDERS, NAMES, st.sampled_from(["file", "file", "file", "link", "folder link", "dangling", "fifo"])
    ),
    max_size=9,
)
PATTERNS = st.lists(
    st.sampled_from(["**", "*", "?", "[", "[a-", "]", "/", "train", ".jsonl", "é"]), min_size=1
)
SPLITS = st.sampled_from(["train", "test", "validation", "train_sft", "sft", "-", "Train", "x y"])


def build(top: Path, entries: list[tuple[list[str], str, str]]) -> None:
    for folders, name, kind in entries:
        place = top.joinpath(*folders)
        if (place / name).is_symlink() or (place / name).exists():
            continue
        try:
            place.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                (place / name).write_text(json.dumps({"text": "a row"}))
            elif kind == "fifo":
                os.mkfifo(place / name)
            else:
                targets = {"link": top / "a-file", "folder link": top, "dangling": top / "nothing"}
                (place / name).symlink_to(targets[kind])
        except OSError:  # a file is where a folder should be
            continue
    (top / "a-file").write_text(json.dumps({"text": "a row"}))


def files_in(top: Path) -> list[Path]:
    """Every file below `top`, whichever way it is reached, in each folder once."""
    seen: set[str] = set()
    found: list[Path] = []
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(folder) / name for name in names]
    return found


@given(entries=ENTRIES, split=SPLITS, kind=st.sampled_from(["dataset", "jsonl", "parquet", "text", "code"]))
def test_every_file_is_read_or_told_of(entries, split, kind):
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), entries)
        files = files_in(Path(folder))
        dangling = [path for path in files if not path.exists()]
        source = {kind: folder} | ({"split": split} if kind == "dataset" else {})
        try:
            reader = SourceReader("s", Source(**source))
        except UserError as error:
            assert str(error).startswith("sources.s: ")
            return
    json.dumps([reader.files, reader.left_out], ensure_ascii=False).encode()
    told = sum(int(re.match(r"[\d,]+", text)[0]) for text in reader.left_out)
    if kind == "code":
        assert told == len(dangling)
    else:
        assert len(reader.files) + told == len(files)


@given(entries=ENTRIES, pattern=PATTERNS, absolute=st.booleans())
def test_any_pattern_names_files_or_is_refused(entries, pattern, absolute):
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), entries)
        text = "".join(pattern)
        text = f"{folder}/{text}" if absolute else text.lstrip("/") or "x"
        try:
            reader = SourceReader("s", Source(dataset=folder, data_files=text))
        except UserError as error:
            assert str(error).startswith("sources.s: ")
            return
        if text in ("**", f"{folder}/**"):
            regular = [path for path in files_in(Path(folder)) if path.is_file()]
            assert len(reader.files) >= sum(map(is_table, regular))
