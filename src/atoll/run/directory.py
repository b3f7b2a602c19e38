"""The directory of a run on one machine, and the directory of one island in it."""

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec

from atoll import recipe as recipes
from atoll.agent import checkpoint, membership
from atoll.data.journal import FILE_NAME as JOURNAL_NAME
from atoll.data.manifest import TOKENIZER_DIR
from atoll.errors import UserError
from atoll.files import LOCK_NAME, DirectoryLock, write_atomic
from atoll.recipe import Recipe
from atoll.recipe.paths import leaves

ISLAND_PREFIX = "island-"
MAX_SHOWN_KEYS = 8


class RunDir:
    """Where everything about a run lies on one machine; docs/concepts.md lists what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.private = path / "private"
        self.genesis = path / "genesis"
        self.coordinator = path / "coordinator"
        self.local_address = self.coordinator / "address"  # where this machine itself reaches the coordinator
        self.islands = path / "islands"
        self.recipe = path / "recipe.json"
        self.events = path / "events.jsonl"

    def claim(self, recipe: Recipe) -> None:
        """Make the directory this recipe's, if it is new.

        Raises UserError, naming the keys that differ, if it is another recipe's.
        """
        if self.recipe.exists():
            known = recipes.load(self.recipe)
            if keys := recipes.differing_keys(known, recipe):
                values = leaves(known.shared())
                there = ", ".join(f"{key}={_toml(values.get(key))}" for key in keys[:MAX_SHOWN_KEYS])
                advice = "give this directory in the recipe's place to go on with its run"
                if (self.data / JOURNAL_NAME).exists():
                    advice = f"it was not prepared to its end: remove {self.path} to begin anew"
                raise UserError(
                    f"{self.path}: this directory is of a run with another recipe; these keys differ: "
                    f"{', '.join(keys)} (there: {there}); {advice}, or choose another --dir"
                )
        else:
            write_atomic(self.recipe, msgspec.json.encode(recipe.shared()))

    @contextlib.contextmanager
    def claimed(self, recipe: Recipe) -> Generator[None]:
        """As `claim`; if the block is refused, what it has made is removed, unless there is work in it."""
        before, is_new = self.existing(), not self.recipe.exists()
        self.claim(recipe)
        try:
            yield
        except (UserError, OSError):
            if is_new and not self._has_work():
                self.recipe.unlink()
                for path in (self.data, self.private):
                    if path not in before:
                        shutil.rmtree(path, ignore_errors=True)
                _remove_empty(self.path, before)
            raise

    @contextlib.contextmanager
    def member(self, directory: Path, before: set[Path]) -> Generator[None]:
        """Around the life of an island in `directory`: one that is refused before it enrolled leaves nothing.

        `before`: what was `existing` before the directory was made. A log that the error names stays.
        """
        try:
            yield
        except UserError as error:
            is_new = directory not in before and membership.load(directory) is None
            if is_new and str(directory) not in str(error):
                shutil.rmtree(directory, ignore_errors=True)
                _remove_empty(self.islands, before)
            raise

    def existing(self) -> set[Path]:
        """Which of its directories, of its islands' and of those above it there are."""
        own = (self.data, self.private, self.islands, self.path, *self.islands.glob("*"))
        return {path for path in (*own, *self.path.parents) if path.exists()}

    def _has_work(self) -> bool:
        """Whether anything here would take time to make again: more than recipe, tokenizer and journal."""
        quick = (self.recipe, self.data / JOURNAL_NAME, *(self.data / TOKENIZER_DIR).glob("*"))
        found = (path for path in self.path.rglob("*") if path.is_file() and path.name != LOCK_NAME)
        return any(path not in quick for path in found)

    def state_0(self) -> checkpoint.OuterCheckpoint:
        """State 0 as `atoll prepare` kept it. Raises UserError if there is none, or it is damaged."""
        found = checkpoint.newest([self.genesis])
        if not found:
            raise UserError(
                f"{self.path}: no state 0 here; make it from the run's recipe first: `atoll prepare RECIPE`"
            )
        return found[0]


def _remove_empty(directory: Path, kept: set[Path]) -> None:
    """Remove a directory and those above it, as far as they are empty and not to be kept."""
    for path in (directory, *directory.parents):
        if path in kept or any(path.iterdir()):
            return
        path.rmdir()


def _toml(value: Any) -> str:
    """A value of a recipe as an override takes it."""
    return "(none)" if value is None else msgspec.json.encode(value).decode()


class IslandDir:
    """The directory of one island, locked by this process while it lives."""

    def __init__(self, run_dir: RunDir, name: str) -> None:
        """Lock the directory called `name`; without a name the first one that no living process has locked.

        So an island whose process died comes back as itself. Raises UserError if the named one is locked.
        """
        if name:
            self.path = run_dir.islands / name
            self._lock = DirectoryLock(self.path / "trainer")
            if not self._lock.acquire():
                raise UserError(f"{self.path}: another process trains here; choose another --name")
            return
        number = 1
        while True:
            self.path = run_dir.islands / f"{ISLAND_PREFIX}{number}"
            self._lock = DirectoryLock(self.path / "trainer")
            if self._lock.acquire():
                return
            self._lock.release()
            number += 1

    def release(self) -> None:
        """Let another process train here."""
        self._lock.release()
