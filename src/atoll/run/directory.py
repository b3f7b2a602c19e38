"""The directory of a run on one machine, and the directory of one island in it."""

from pathlib import Path

import msgspec

from atoll import recipe as recipes
from atoll.agent import checkpoint
from atoll.errors import UserError
from atoll.files import DirectoryLock, write_atomic
from atoll.recipe import Recipe

ISLAND_PREFIX = "island-"


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

    def claim(self, recipe: Recipe) -> None:
        """Make the directory this recipe's, if it is new.

        Raises UserError, naming the keys that differ, if it is another recipe's.
        """
        if self.recipe.exists():
            known = recipes.load(self.recipe)
            if keys := recipes.differing_keys(known, recipe):
                raise UserError(
                    f"{self.path}: this directory is of a run with another recipe; these keys differ: "
                    f"{', '.join(keys)}; choose another --dir, or delete this one"
                )
        else:
            write_atomic(self.recipe, msgspec.json.encode(recipe.shared()))

    def state_0(self) -> checkpoint.OuterCheckpoint:
        """State 0 as `atoll prepare` kept it. Raises UserError if there is none, or it is damaged."""
        found = checkpoint.newest([self.genesis])
        if not found:
            raise UserError(f"{self.path}: no state 0 here; run `atoll prepare` first")
        return found[0]


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
