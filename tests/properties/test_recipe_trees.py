"""Whatever a recipe's file says, it is either a recipe or a UserError; and order never matters to the
digest.
"""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.recipe.overrides import override

TEXT = (recipes.BUILT_IN_DIR / "demo.toml").read_text("utf-8")
KEYS = [
    "name",
    "model",
    "model.preset",
    "stage",
    "stage.0",
    "stage.0.until",
    "stage.0.mixture",
    "stage.0.mixture.books",
    "inner",
    "inner.optimizer",
    "inner.optimizer.betas",
    "outer",
    "outer.lr",
    "sources",
    "sources.books",
    "island",
    "tokenizer.train",
    "",
    "a..b",
    "stage.-1.until",
]
VALUES = ["1", "-1", "1.5", "true", "[]", "[1]", "{}", "{a=1}", '""', "word", "nan", "1979-05-27", "", "= ="]


def shuffled(value: Any, draw: Any) -> Any:
    """The same tables with their keys in another order."""
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@given(st.data())
def test_the_order_of_keys_is_nothing_to_the_digest(data) -> None:
    tree = tomllib.loads(TEXT)
    other = shuffled(tree, data.draw)
    assert recipes.parse(other, "other").digest() == recipes.parse(tree, "one").digest()


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4))
def test_any_override_gives_a_recipe_or_a_user_error(overrides: list[tuple[str, str]]) -> None:
    tree = tomllib.loads(TEXT)
    try:
        for key, value in overrides:
            override(tree, f"{key}={value}")
        recipe = recipes.parse(tree, "test.toml")
    except UserError:
        return
    assert recipes.parse(recipe.shared(), "again").digest() == recipe.digest()
