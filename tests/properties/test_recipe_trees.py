"""Any recipe file gives a recipe or a UserError, and the order of its keys does not change the digest."""

import math
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll import recipe as recipes
from atoll.data.loader import _cut
from atoll.errors import UserError
from atoll.island.schedule import factor
from atoll.recipe import Recipe
from atoll.recipe.overrides import override
from atoll.recipe.paths import assign, joined, leaves
from atoll.recipe.words import bare, members

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
    "objective.outer_lr",
    "sources",
    "sources.books",
    "sources.books.keep",
    "sources.books.keep.score",
    "sources.books.keep.score.max",
    "island",
    "tokenizer.train",
    "",
    "a..b",
    "stage.-1.until",
]
VALUES = ["1", "-1", "1.5", "true", "[]", "[1]", "{}", "{a=1}", '""', "word", "nan", "1979-05-27", "", "= ="]
VALUES += ["[{}]", "0xffffffffffffffffff", "1e308", "9" * 5000, "0x" + "f" * 5000, "{type='muon'}", "{min=1}"]


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
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert recipes.parse(recipe.shared(), "again").digest() == recipe.digest()


# ---------------------------------------------------------------------------------------------------- numbers
class Number(NamedTuple):
    """A number that a recipe may hold."""

    path: str
    type: type
    bounds: msgspec.Meta | None


# Between them, these have a place for every number that a recipe may hold.
KEEP = "sources.books.keep.score"
ROWS = "sources={books={jsonl='b.jsonl'}, python={jsonl='p.jsonl'}}"
WHOLE = [
    msgspec.json.decode(msgspec.json.encode(recipes.load("demo", overrides)))
    for overrides in (
        [f"{KEEP}={{min=0, max=1}}"],
        [f"{KEEP}=[1]", "inner.optimizer={type='muon'}"],
        ["model={from='a-model', lora={}}", ROWS, "objective={type='sft'}"],
        *([ROWS, f"objective={{type='{name}'}}"] for name in ("dpo", "ipo", "simpo", "distill")),
    )
]


def numbers(hint: Any, path: str = "") -> Iterator[Number]:
    """Every number in a value of this type, tables of names having one entry."""
    for member in members(hint):
        plain, arguments = bare(member), get_args(bare(member))
        if plain in (int, float):
            bounds = [each for each in get_args(member)[1:] if isinstance(each, msgspec.Meta)]
            yield Number(path, plain, bounds[0] if bounds else None)
        elif get_origin(plain) is dict:
            yield from numbers(arguments[1], joined(path, "score" if path.endswith("keep") else "books"))
        elif get_origin(plain) is list:
            yield from numbers(arguments[0], joined(path, 0))
        elif get_origin(plain) is tuple:
            for place, each in enumerate(arguments):
                yield from numbers(each, joined(path, place))
        elif isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            for field in msgspec.structs.fields(plain):
                yield from numbers(field.type, joined(path, field.encode_name))


NUMBERS = list(numbers(Recipe))


def test_every_number_of_a_recipe_has_bounds_and_is_tried_below() -> None:
    assert len(NUMBERS) > 40
    for number in NUMBERS:
        assert number.bounds is not None, f"{number.path}: any number at all is allowed"
        assert any(number.path in leaves(tree) for tree in WHOLE), number.path


def outside(number: Number) -> st.SearchStrategy[int | float]:
    """Numbers of the right type that its bounds leave out."""
    bounds = number.bounds
    assert bounds is not None
    low, high = (
        next(bound for bound in pair if bound is not None)
        for pair in ((bounds.gt, bounds.ge), (bounds.lt, bounds.le))
    )
    if number.type is int:
        return st.integers(max_value=low - 1) | st.integers(min_value=high + 1)
    below = st.floats(max_value=low, exclude_max=bounds.gt is None)
    above = st.floats(min_value=high, exclude_min=bounds.lt is None)
    return st.sampled_from([math.nan, math.inf, -math.inf]) | below | above


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number.path}-{number.type.__name__}")
@given(data=st.data())
def test_a_number_out_of_its_bounds_is_refused_with_its_path(number: Number, data) -> None:
    value = data.draw(outside(number))
    for tree in deepcopy(WHOLE):
        if number.path in leaves(tree):
            assign(tree, number.path, value)
            with pytest.raises(UserError) as caught:
                recipes.parse(tree, "test.toml")
            assert str(caught.value).startswith(f"test.toml: at {number.path}: must be ")


SOME_NUMBERS = st.integers(-2, 2) | st.floats() | st.integers() | st.sampled_from([2**63 - 1, 2**63, 1e308])


@given(st.dictionaries(st.sampled_from([number.path for number in NUMBERS]), SOME_NUMBERS, max_size=3))
def test_what_is_accepted_survives_json_and_messages(values: dict[str, int | float]) -> None:
    for tree in deepcopy(WHOLE):
        for path, value in values.items():
            if path in leaves(tree):
                assign(tree, path, value)
        try:
            recipe = recipes.parse(tree, "test.toml")
        except UserError:
            continue
        for form in (msgspec.json, msgspec.msgpack):
            shared = form.decode(form.encode(recipe.shared()))
            assert recipes.parse(shared, "again").digest() == recipe.digest()


# ---------------------------------------------------------------------------------------- what comes of them
INTEGERS = st.integers(-3, 20)
OF_THE_ISLAND = [number.path for number in NUMBERS if number.path.startswith("island.")]


@given(st.dictionaries(st.sampled_from(OF_THE_ISLAND), INTEGERS, max_size=3), st.integers(0, 50))
def test_no_island_that_is_accepted_divides_by_zero(table: dict[str, int], step: int) -> None:
    """As `train.py` counts steps, `Loader` cuts micro-batches, and `InnerCheckpoints` keeps the newest."""
    overrides = [f"{path}={value}" for path, value in table.items()]
    try:
        own, island = recipes.own_island(overrides), recipes.load("demo", overrides).island
    except UserError:
        assert min(table.values()) <= 0
        return
    assert own == msgspec.structs.replace(island, threads=own.threads)
    assert 0 <= (step + 1) % island.checkpoint_every < island.checkpoint_every
    assert 0 <= step % island.read_every < island.read_every
    assert not island.evaluate_every or 0 <= step % island.evaluate_every < island.evaluate_every
    assert island.threads is None or island.threads > 0
    windows = [("books", number) for number in range(step)]
    assert [window for part in _cut(windows, island.micro_batch) for window in part] == windows
    saved = list(range(step))
    removed = saved[: -island.checkpoint_keep]
    assert len(saved) - len(removed) == min(step, island.checkpoint_keep)


@given(
    st.dictionaries(st.sampled_from(["warmup_steps", "decay_steps", "final"]), INTEGERS | st.floats(-1, 2)),
    st.sampled_from(["wsd", "cosine", "linear", "constant"]),
    st.integers(1, 30),
)
def test_a_schedule_that_is_accepted_never_leaves_0_to_1(
    table: dict[str, int | float], kind: str, until: int
) -> None:
    schedule = {"type": kind, **table}
    tree = tomllib.loads(TEXT)
    tree["inner"]["schedule"], tree["stage"][0]["until"] = schedule, until
    try:
        recipe = recipes.parse(tree, "test.toml")
    except UserError:
        return
    for step in range(until + 2):
        assert 0 <= factor(recipe.inner.schedule, step, until) <= 1


@given(st.dictionaries(st.sampled_from(["books", "python", "mail"]), st.integers(-1, 3) | st.floats()))
def test_a_mixture_that_is_accepted_can_be_shared_out(mixture: dict[str, int | float]) -> None:
    tree = tomllib.loads(TEXT)
    tree["sources"]["mail"] = {"partitioned": True}
    tree["stage"][0]["mixture"] = mixture
    try:
        recipe = recipes.parse(tree, "test.toml")
    except UserError:
        return
    assert sum(recipe.mixture(0).values()) > 0
    assert 0 <= sum(recipe.private_shares(0).values()) <= 1
