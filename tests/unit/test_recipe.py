"""Recipes: what is refused, and with which words; overrides; what the digest covers."""

import tomllib
from typing import Any

import msgspec
import pytest

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.recipe import Recipe

TEXT = """
name = "test"
model.preset = "demo"
tokenizer.train = 512
sources.books.text = "books.txt"
sources.code.code = "stdlib"
[[stage]]
until = 100
mixture = { books = 80, code = 20 }
[[stage]]
until = 200
mixture = { books = 1 }
[inner]
context_length = 64
tokens_per_step = 256
optimizer = { type = "adamw" }
[outer]
inner_steps = 30
[island]
threads = 2
"""


def tree() -> dict[str, Any]:
    return tomllib.loads(TEXT)


def with_overrides(*overrides: str) -> Recipe:
    plain = tree()
    for override in overrides:
        recipes._override(plain, override)
    return recipes.parse(plain, "test.toml")


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        with_overrides(*overrides)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("override", "path", "why"),
    [
        ("outer.speed=3", "outer", "speed"),
        ("inner.optimizer.type=sgd", "inner.optimizer", "sgd"),
        ("island.gpu=1", "island", "gpu"),
        ("colour=red", "top level", "colour"),
        ("outer.inner_steps=fast", "outer.inner_steps", "int"),
        ("stage.1.until=soon", "stage[1].until", "int"),
        ("outer.codec=int4", "outer.codec", "int4"),
        ("name=7", "name", "str"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_refused_with_its_path(override: str, path: str, why: str) -> None:
    message = refusal(override)
    assert message.startswith("test.toml: at ")
    assert path in message
    assert why in message


@pytest.mark.parametrize("key", ["name", "model", "stage", "inner", "outer"])
def test_a_missing_table_is_named(key: str) -> None:
    plain = tree()
    del plain[key]
    with pytest.raises(UserError, match=f"missing required field `{key}`"):
        recipes.parse(plain, "test.toml")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["name=../etc"], "name"),
        (["model.from=a-model"], "model"),
        (["tokenizer.file=tokenizer.json"], "tokenizer"),
        (["sources.books.code=stdlib"], "sources.books"),
        (["inner.context_length=0"], "inner.context_length"),
        (["inner.tokens_per_step=100"], "inner.tokens_per_step"),
        (["outer.inner_steps=0"], "outer.inner_steps"),
        (["outer.lr=0"], "outer"),
        (["outer.lr=nan"], "outer"),
        (["outer.momentum=1"], "outer"),
        (["outer.min_participants=0"], "outer.min_participants"),
        (["heldout_fraction=1"], "heldout_fraction"),
        (["island.micro_batch=0"], "island.micro_batch"),
        (["stage.1.until=100"], "stage[1].until"),
        (["stage.0.mixture.films=1"], "stage[0].mixture"),
        (["stage.0.mixture.books=-1"], "stage[0].mixture"),
        (["stage=[]"], "stage"),
    ],
)
def test_an_inconsistent_recipe_is_refused_with_the_key(overrides: list[str], key: str) -> None:
    assert refusal(*overrides).startswith(f"test.toml: {key}")


@pytest.mark.parametrize("override", ["outer.lr=inf", "inner.clip_norm=inf"])
def test_an_infinite_number_is_refused_or_survives_recipe_json(override: str) -> None:
    try:
        recipe = with_overrides(override)
    except UserError:
        return
    recipes.parse(msgspec.json.decode(msgspec.json.encode(recipe.shared())), "recipe.json")


@pytest.mark.parametrize("override", ["inner.optimizer={lr=1.0}", "inner.optimizer.type=sgd"])
def test_an_optimizer_that_is_none_is_answered_with_those_there_are(override: str) -> None:
    assert "adamw" in refusal(override)
    assert "muon" in refusal(override)


def test_a_recipe_json_that_is_damaged_is_not_called_toml(tmp_path) -> None:
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        recipes.load(tmp_path / "recipe.json")


def test_the_files_of_recipes_that_cannot_be_read_are_refused(tmp_path) -> None:
    path = tmp_path / "bad.toml"
    for content in (b"name = ", b"\xff\xfe", TEXT.encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.toml"):
            recipes.load(path)


def test_a_recipe_that_is_not_there_is_answered_with_the_built_in_names() -> None:
    with pytest.raises(UserError, match=r"built-in names: .*demo"):
        recipes.load("no-such-recipe")


def test_every_built_in_recipe_loads() -> None:
    names = [path.stem for path in recipes.BUILT_IN_DIR.glob("*.toml")]
    assert "demo" in names
    for name in names:
        recipes.load(name)


# -------------------------------------------------------------------------------------------------- overrides
def test_overrides_reach_into_tables_and_lists() -> None:
    recipe = with_overrides(
        "outer.lr=0.5", "stage.0.until=50", "inner.optimizer.betas=[0.8, 0.9]", "inner.schedule.final=0.1"
    )
    assert recipe.outer.lr == 0.5
    assert [stage.until for stage in recipe.stage] == [50, 200]
    assert recipe.inner.optimizer.betas == (0.8, 0.9)
    assert recipe.inner.schedule.final == 0.1


@pytest.mark.parametrize("text", ["cpu", "cuda:0", "mps", '"cpu"'])
def test_words_need_no_quotes(text: str) -> None:
    assert with_overrides(f"island.device={text}").island.device == text.strip('"')


@pytest.mark.parametrize(
    "override", ["outer.lr", "=3", "stage.7.until=9", "stage.first.until=9", "name.of.it=3"]
)
def test_an_override_that_leads_nowhere_is_refused(override: str) -> None:
    assert refusal(override).startswith(override)


def test_joining_takes_overrides_of_the_island_only() -> None:
    assert recipes.own_island(["island.threads=3"]).threads == 3
    with pytest.raises(UserError, match=r"outer: the run's recipe decides this"):
        recipes.own_island(["island.threads=3", "outer.lr=0.1"])
    with pytest.raises(UserError, match="threads"):
        recipes.own_island(["island.threads=many"])


def test_an_own_island_table_is_checked_like_the_recipe() -> None:
    with pytest.raises(UserError, match="micro_batch"):
        recipes.with_island(with_overrides().shared(), recipes.own_island(["island.micro_batch=0"]))


# ----------------------------------------------------------------------------------------------------- digest
def test_the_digest_does_not_cover_the_island() -> None:
    assert with_overrides("island.threads=7", "island.device=cpu").digest() == with_overrides().digest()


def test_the_digest_covers_everything_else() -> None:
    overrides = [
        "outer.lr=0.5",
        "seed=1",
        "stage.0.mixture.books=81",
        "sources.books.text=others.txt",
        "inner.z_loss=0.1",
    ]
    digests = {with_overrides(override).digest() for override in overrides} | {with_overrides().digest()}
    assert len(digests) == len(overrides) + 1


def test_a_default_written_out_leaves_the_digest_as_it_is() -> None:
    assert with_overrides("outer.codec=int8", "outer.lr=0.7", "seed=0").digest() == with_overrides().digest()


def test_a_run_keeps_its_digest_through_its_recipe_json(tmp_path) -> None:
    recipe = with_overrides()
    path = tmp_path / "recipe.json"
    path.write_bytes(msgspec.json.encode(recipe.shared()))
    assert recipes.load(path).digest() == recipe.digest()


# ------------------------------------------------------------------------------------------------ differences
def test_differing_keys_are_named_by_their_dotted_path() -> None:
    other = with_overrides(
        "outer.lr=0.1", "stage.1.until=300", "sources.more.text=more.txt", "island.threads=9"
    )
    keys = recipes.differing_keys(with_overrides(), other)
    assert "outer.lr" in keys
    assert "stage.1.until" in keys
    assert "sources.more.text" in keys
    assert not [key for key in keys if key.startswith("island")]


def test_equal_recipes_differ_in_nothing() -> None:
    assert recipes.differing_keys(with_overrides(), with_overrides("island.threads=9")) == []


def test_the_last_outer_step_covers_a_rest_of_inner_steps() -> None:
    assert with_overrides().num_outer_steps == 7  # 200 inner steps, 30 each
