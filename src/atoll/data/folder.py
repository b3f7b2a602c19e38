"""The files below a folder that a user gives, through links too, and what else is there.

Nothing is passed over in silence.
"""

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path, PurePosixPath

from atoll.errors import UserError
from atoll.given import named

NUM_SHOWN = 3  # names in a sentence about files that are left out
MAGIC = re.compile(r"[*?\[]")

IsWanted = Callable[[Path], bool]  # of a file, by its name


@dataclass
class Found:
    """The files to read, in their order; and what else is there, in sentences."""

    files: list[Path] = field(default_factory=list[Path])
    left_out: list[str] = field(default_factory=list[str])


def files_below(
    folder: Path, is_wanted: IsWanted, *, tells_others: bool = True, takes_hidden: bool = False
) -> Found:
    """The wanted files in `folder` and below, sorted by their path in it.

    `tells_others`: whether files that are left out for their names are worth a sentence. `takes_hidden`: also
    those whose names begin with a dot, which are mostly a program's own and no data. Links to folders are
    followed, but each folder is read once, so that a link in a circle ends. Raises UserError for a folder
    that cannot be read, and for a link of a wanted name that leads nowhere.
    """
    walk = _Walk(is_wanted, takes_hidden)
    walk.enter(folder)
    while walk.links:  # after all folders, so that a folder is known by its own name rather than by a link's
        walk.enter(walk.links.pop(0))
    found = Found(sorted(walk.files, key=lambda path: path.relative_to(folder).as_posix()))
    if tells_others:
        found.left_out += left_out(walk.others, "of another kind", folder)
    found.left_out += left_out(walk.dangling, "a link that leads nowhere", folder)
    found.left_out += left_out(walk.hidden, "hidden by a dot before the name", folder)
    return found


def files_matching(folder: Path, pattern: str, is_wanted: IsWanted) -> Found:
    """The wanted files that a pattern names, sorted by path.

    The pattern begins in `folder`, or is absolute. `*`, `?` and `[...]` stand for parts of a name, and `**`
    for any folders; a folder stands for all that is in it. Raises UserError like `files_below`.
    """
    names = PurePosixPath(pattern).parts
    num_fixed = next((number for number, name in enumerate(names) if MAGIC.search(name)), len(names))
    base, rest = folder.joinpath(*names[:num_fixed]), [name for name, _ in groupby(names[num_fixed:])]
    if base.is_file() and not rest:
        base, rest = base.parent, [base.name]
    if not base.is_dir():
        return Found()

    def is_named(path: Path) -> bool:
        return not rest or _matches(path.relative_to(base).parts, rest)

    hidden = any(name.startswith(".") for name in rest)
    found = files_below(base, lambda path: is_named(path) and is_wanted(path), takes_hidden=hidden)
    others = files_below(base, lambda path: is_named(path) and not is_wanted(path), takes_hidden=hidden).files
    return Found(found.files, left_out(others, "of another kind", base))


def left_out(paths: list[Path], reason: str, folder: Path) -> list[str]:
    """What is said of files that are not read, if there are any: how many, why, and the first of them."""
    names = sorted(named(path.relative_to(folder)) for path in paths)
    shown = ", ".join(names[:NUM_SHOWN]) + (", …" if len(names) > NUM_SHOWN else "")
    return [f"{len(names):,} {'file' if len(names) == 1 else 'files'} left out, {reason}: {shown}"] * bool(
        names
    )


class _Walk:
    """What has been found of a tree of folders so far."""

    def __init__(self, is_wanted: IsWanted, takes_hidden: bool) -> None:
        self._is_wanted, self._takes_hidden = is_wanted, takes_hidden
        self._entered: set[tuple[int, int]] = set()  # (device, inode) of folders
        self.files: list[Path] = []
        self.links: list[Path] = []  # to folders; not yet followed
        self.others: list[Path] = []
        self.dangling: list[Path] = []
        self.hidden: list[Path] = []  # files, and folders as a whole

    def enter(self, top: Path) -> None:
        """Take in everything below `top`, except through links to folders, which are noted."""
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in self._entered:
                    continue
                self._entered.add((status.st_dev, status.st_ino))
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                    self._add(entry, folders)
            except OSError as error:
                where = named(error.filename or folder)
                raise UserError(f"{where}: cannot be read: {error.strerror or error}") from error

    def _add(self, entry: os.DirEntry[str], folders: list[Path]) -> None:
        path = Path(entry.path)
        if entry.name.startswith(".") and not self._takes_hidden:
            self.hidden.append(path)
            return
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            if not entry.is_symlink():
                raise
            if self._is_wanted(path):
                raise UserError(f"{named(path)}: a link that leads nowhere; mend or remove it") from error
            self.dangling.append(path)
            return
        if stat.S_ISDIR(mode):
            (self.links if entry.is_symlink() else folders).append(path)
        else:
            (self.files if stat.S_ISREG(mode) and self._is_wanted(path) else self.others).append(path)


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a relative path match those of a pattern."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_matches(names[at:], pattern[1:]) for at in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])
