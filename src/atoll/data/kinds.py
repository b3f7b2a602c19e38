"""What a file holds, told by its name, in small or capital letters."""

from pathlib import Path

PACKED = (".gz", ".zst", ".bz2", ".xz")
JSONL = tuple(kind + packed for kind in (".jsonl", ".ndjson") for packed in ("", *PACKED))
# A plain `.json` beside them is mostly about the data: it is read where its name is given.
JSON_LINES = (*JSONL, *(".json" + packed for packed in PACKED))
TEXT = tuple(".txt" + packed for packed in ("", *PACKED))
PARQUET = (".parquet",)


def ends_with(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file has one of these suffixes."""
    return path.name.lower().endswith(suffixes)


def is_table(path: Path) -> bool:
    """Whether a file in a folder holds rows."""
    return ends_with(path, (*JSON_LINES, *PARQUET))


def may_be_table(path: Path) -> bool:
    """Whether a file that is asked for by name may hold rows."""
    return is_table(path) or ends_with(path, (".json",))


def stem(path: Path) -> str:
    """A table's name without its suffix."""
    name = path.name
    suffixes = (suffix for suffix in (*JSON_LINES, *PARQUET, ".json") if name.lower().endswith(suffix))
    return name[: -max(map(len, suffixes), default=0) or None]
