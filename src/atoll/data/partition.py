"""Partitions: the part of a private source that one machine holds, prepared there, and given to nobody."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll import recipe as recipes
from atoll.data.manifest import FILE_NAME, TOKENIZER_DIR, Manifest
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.samples import partition_number, source_of

# Nothing of a partition is held out, because every island must have the held-out text. A recipe does not
# allow a fraction of 0.
HELDOUT_FRACTION = 1e-12


@dataclass(frozen=True)
class Partition:
    """A prepared partition."""

    name: str  # SOURCE/NAME
    number: int  # see samples.py
    directory: Path
    manifest: Manifest

    def num_windows(self, context_length: int) -> int:
        """The number of its windows of `context_length` tokens: at least 1, since `prepare` refuses fewer."""
        return -(-self.manifest.sources[source_of(self.name)].num_tokens("train") // context_length)

    def check(self, common: Manifest) -> None:
        """Raises UserError where it was prepared with another tokenizer than the run's data, `common`."""
        if self.manifest.tokenizer != common.tokenizer:
            raise UserError(
                f"{self.directory}: made with another tokenizer than the run's; delete it and prepare "
                "it again"
            )


def partitions(directory: Path, recipe: Recipe) -> list[Partition]:
    """The prepared partitions, of sources of the recipe, under `directory`, the run's `private/`; by path."""
    found: list[Partition] = []
    for path in sorted(directory.glob(f"*/*/{FILE_NAME}")):
        name = path.parent.relative_to(directory).as_posix()
        if source_of(name) in recipe.partitioned:
            manifest = Manifest.load(path.parent)
            number = partition_number(recipe.partitioned, name, manifest.digest())
            found.append(Partition(name, number, path.parent, manifest))
    return found


def recipe_of(recipe: Recipe, wanted: str, data_dir: Path) -> tuple[str, Recipe]:
    """(name, recipe to prepare it from) of the partition `wanted`, written SOURCE/NAME=KIND:PATH.

    It uses the run's tokenizer, in `data_dir`. Raises UserError where `wanted` is malformed or of no
    partitioned source of the recipe, or the tokenizer is not there.
    """
    name, equals, where = wanted.partition("=")
    source, slash, part = name.partition("/")
    kind, colon, path = where.partition(":")
    if not (equals and slash and colon and part.replace("-", "").replace("_", "").isalnum()):
        raise UserError(
            f"--partition {wanted}: write it as SOURCE/NAME=KIND:PATH, as in "
            "mail/ada=jsonl:/home/ada/mail.jsonl"
        )
    if source not in recipe.partitioned:
        known = ", ".join(recipe.partitioned) or "there is none"
        raise UserError(
            f"--partition {wanted}: no partitioned source of the recipe is named {source} ({known})"
        )
    tokenizer = data_dir / TOKENIZER_DIR / "tokenizer.json"
    if not tokenizer.exists():
        raise UserError(
            f"{data_dir}: the run's tokenizer is not here yet; first run `atoll prepare`, or join once"
        )
    tree: dict[str, Any] = recipe.shared()
    tree["sources"] = {source: tree["sources"][source] | {"partitioned": False, kind: path}}
    if recipe.objective.rows != "stream":
        tree["chat"] |= {"template": "tokenizer"}  # which has the run's; its file may be on another machine
    tree |= {
        "tokenizer": {"file": str(tokenizer)},
        "heldout_fraction": HELDOUT_FRACTION,
        "stage": [{"until": recipe.stage[-1].until, "mixture": {source: 1.0}}],
    }
    return name, recipes.parse(tree, f"--partition {wanted}")
