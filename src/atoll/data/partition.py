"""A partition: the part of a private source that one machine holds. Prepared beside the run's data, never
given away.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll import recipe as recipes
from atoll.data.manifest import FILE_NAME, TOKENIZER_DIR, Manifest
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.samples import partition_number, source_of

NOTHING_HELD_OUT = 1e-12  # held-out text is everybody's


@dataclass(frozen=True)
class Partition:
    name: str  # SOURCE/NAME
    number: int
    directory: Path
    manifest: Manifest

    def num_windows(self, context_length: int) -> int:
        """At least 1, or preparing would have refused it."""
        return -(-self.manifest.sources[source_of(self.name)].num_tokens("train") // context_length)

    def check(self, common: Manifest) -> None:
        """Raises UserError where its tokens are not of the run's tokenizer."""
        if self.manifest.tokenizer != common.tokenizer:
            raise UserError(
                f"{self.directory}: made with another tokenizer than the run's; delete it and prepare "
                "it again"
            )


def partitions(directory: Path, recipe: Recipe) -> list[Partition]:
    """Those that are prepared under a run's `private` directory, of sources that are the recipe's."""
    found: list[Partition] = []
    for path in sorted(directory.glob(f"*/*/{FILE_NAME}")):
        name = path.parent.relative_to(directory).as_posix()
        if source_of(name) in recipe.partitioned:
            manifest = Manifest.load(path.parent)
            number = partition_number(recipe.partitioned, name, manifest.digest())
            found.append(Partition(name, number, path.parent, manifest))
    return found


def recipe_of(recipe: Recipe, wanted: str, data_dir: Path) -> tuple[str, Recipe]:
    """(name, recipe) of a partition from `SOURCE/NAME=KIND:PATH`, with the run's tokenizer. Raises
    UserError.
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
            f"{data_dir}: the run's tokenizer is not here yet; run `atoll prepare`, or join once, first"
        )
    tree: dict[str, Any] = recipe.shared()
    tree["sources"] = {source: tree["sources"][source] | {"partitioned": False, kind: path}}
    tree |= {
        "tokenizer": {"file": str(tokenizer)},
        "heldout_fraction": NOTHING_HELD_OUT,
        "stage": [{"until": recipe.stage[-1].until, "mixture": {source: 1.0}}],
    }
    return name, recipes.parse(tree, f"--partition {wanted}")
