"""The digest of what goes into a step: files and directories by their content."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from blake3 import blake3

from atoll.files import LOCK_NAME, digest_file


def digest_value(value: object) -> str:
    """Of plain values, as hex."""
    return blake3(msgspec.json.encode(value, order="sorted")).hexdigest()


def digest_path(path: Path) -> str:
    """Of a file, or of all files of a directory with their names, as hex."""
    if path.is_file():
        return digest_file(path)
    return digest_value([(str(file.relative_to(path)), digest_file(file)) for file in _files(path)])


def _files(directory: Path) -> Iterator[Path]:
    """The files of a directory, sorted; not those that only a process of the moment has."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != LOCK_NAME and path.suffix not in (".log", ".tmp", ".pid"):
            yield path
