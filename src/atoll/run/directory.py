"""Where a run lies on one machine, and the directory in it that one island holds."""

from pathlib import Path

import msgspec

from atoll import recipe as recipes
from atoll.agent import checkpoint
from atoll.errors import UserError
from atoll.files import DirectoryLock, write_atomic
from atoll.recipe import Recipe

ISLAND_PREFIX = "island-"


class RunDir:
    """Where everything about a run lies on one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.private = path / "private"
        self.genesis = path / "genesis"
        self.coordinator = path / "coordinator"
        self.islands = path / "islands"
        self.recipe = path / "recipe.json"

    def claim(self, recipe: Recipe) -> None:
        """Make the directory this recipe's. Raises UserError, naming keys, if it belongs to another."""
        if self.recipe.exists():
            known = recipes.load(self.recipe)
            if keys := recipes.differing_keys(known, recipe):
                raise UserError(
                    f"{self.path}: made for another recipe; these keys differ: {', '.join(keys)}; "
                    "choose another --dir, or delete this one"
                )
        else:
            write_atomic(self.recipe, msgspec.json.encode(recipe.shared()))

    def state_0(self) -> checkpoint.OuterCheckpoint:
        """Raises UserError when nothing is prepared here, or it is damaged."""
        found = checkpoint.newest([self.genesis])
        if not found:
            raise UserError(f"{self.path}: no state 0 here; run `atoll prepare` first")
        return found[0]


class IslandDir:
    """A directory for one island, ours while this process lives."""

    def __init__(self, run_dir: RunDir, name: str) -> None:
        """`name` may be empty: the first that no living process holds, so that whoever died comes back as
        itself.

        Raises UserError when the named one is taken.
        """
        if name:
            self.path, self._lock = run_dir.islands / name, DirectoryLock(run_dir.islands / name / "trainer")
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
