"""Recipes: what is refused, and with which words; overrides; what the digest covers."""

import tomllib
from typing import Any

import msgspec
import pytest

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.recipe.overrides import override

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
[objective]
type = "pretrain"
[outer]
inner_steps = 30
[island]
threads = 2
"""

ROWS = "sources={books={jsonl='books.jsonl'}, code={parquet='code'}}"  # an override

ONE_SOURCE = """
name = "test"
model.preset = "demo"
tokenizer.train = 512
sources.books.text = "books.txt"
stage = [{ until = 100 }]
inner = { context_length = 64, tokens_per_step = 256, optimizer = { type = "adamw" } }
outer = { inner_steps = 10 }
"""


def tree() -> dict[str, Any]:
    return tomllib.loads(TEXT)


def with_overrides(*overrides: str) -> Recipe:
    plain = tree()
    for text in overrides:
        override(plain, text)
    return recipes.parse(plain, "test.toml")


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        with_overrides(*overrides)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("outer.speed=3", "outer", "speed"),
        ("inner.optimizer.type=sgd", "inner.optimizer", "sgd"),
        ("island.gpu=1", "island", "gpu"),
        ("colour=red", "top level", "colour"),
        ("outer.inner_steps=fast", "outer.inner_steps", "int"),
        ("stage.1.until=soon", "stage.1.until", "int"),
        ("outer.codec=int4", "outer.codec", "int4"),
        ("name=7", "name", "str"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_refused_with_its_path(text: str, path: str, why: str) -> None:
    message = refusal(text)
    assert message.startswith("test.toml: at ")
    assert path in message
    assert why in message


@pytest.mark.parametrize("key", ["name", "model", "stage", "inner", "outer"])
def test_a_missing_table_is_named(key: str) -> None:
    plain = tree()
    del plain[key]
    with pytest.raises(UserError, match=f"at the top level: missing required key `{key}`"):
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
        (["objective.outer_lr=0"], "objective.outer_lr"),
        (["objective.outer_lr=nan"], "objective.outer_lr"),
        (["objective.outer_momentum=1"], "objective.outer_momentum"),
        (["objective={type='dpo', label_smoothing=0.5}"], "objective.label_smoothing"),
        (["objective={type='sft', beta=0.1}"], "objective"),
        (["objective={type='dpo', margin=1}"], "objective"),
        (["objective={type='kto'}"], "objective"),
        (["outer.min_participants=0"], "outer.min_participants"),
        (["heldout_fraction=1"], "heldout_fraction"),
        (["island.micro_batch=0"], "island.micro_batch"),
        (["stage.1.until=100"], "stage.1.until"),
        (["stage.0.mixture.films=1"], "stage.0.mixture"),
        (["stage.0.mixture.books=-1"], "stage.0.mixture"),
        (["stage=[]"], "stage"),
    ],
)
def test_an_inconsistent_recipe_is_refused_with_the_key(overrides: list[str], key: str) -> None:
    assert refusal(*overrides).startswith(f"test.toml: at {key}")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("name", ["''", "a/b", "a" * 56]),
        ("model.preset", ["''"]),
        ("model.from", ["''"]),
        ("model.vocab_size", ["0", "-1"]),
        ("model.hidden_size", ["0"]),
        ("model.intermediate_size", ["0"]),
        ("model.num_hidden_layers", ["0"]),
        ("model.num_attention_heads", ["0"]),
        ("model.num_key_value_heads", ["0", "-2"]),
        ("model.rope_theta", ["0", "-1.0", "nan", "inf"]),
        ("tokenizer.train", ["0", "-1"]),
        ("tokenizer.file", ["''"]),
        ("seed", ["9223372036854775808", "0.5"]),
        ("heldout_fraction", ["0", "1", "-0.1", "nan"]),
        ("data_url", ["''", "ftp://host/data", "https://"]),
        ("sources.books.text", ["''", '"a\\u0000b"']),
        ("sources.books.code", ["''"]),
        ("sources.books.jsonl", ["''"]),
        ("sources.books.parquet", ["''"]),
        ("sources.books.dataset", ["''"]),
        ("sources.books.revision", ["''"]),
        ("sources.books.config", ["''"]),
        ("sources.books.split", ["''"]),
        ("sources.books.data_files", ["''"]),
        ("sources.books.column", ["''"]),
        ("sources.books.separator", ["''"]),
        ("sources.books.keep.score", ["[]", "3"]),
        ("sources.books.keep.score.min", ["nan", "-inf", "low"]),
        ("stage.0.until", ["0", "-1"]),
        ("stage.0.mixture.books", ["-1", "nan", "inf"]),
        ("inner.context_length", ["0", "-64"]),
        ("inner.tokens_per_step", ["0", "-64"]),
        ("inner.optimizer.lr", ["0", "-1.0", "nan", "inf"]),
        ("inner.optimizer.betas.0", ["-0.1", "1"]),
        ("inner.optimizer.betas.1", ["1.0", "nan"]),
        ("inner.optimizer.betas", ["[0.9]", "0.9"]),
        ("inner.optimizer.eps", ["0", "-1e-8"]),
        ("inner.optimizer.weight_decay", ["-0.1", "inf"]),
        ("inner.schedule.warmup_steps", ["-1"]),
        ("inner.schedule.decay_steps", ["-1"]),
        ("inner.schedule.final", ["-0.1", "1.1", "nan"]),
        ("inner.clip_norm", ["0", "-1.0", "nan", "inf"]),
        ("inner.z_loss", ["-1.0", "nan"]),
        ("outer.inner_steps", ["0", "-1"]),
        ("objective.outer_lr", ["0", "-0.7", "nan", "inf"]),
        ("objective.outer_momentum", ["-0.1", "1"]),
        ("outer.min_participants", ["0"]),
        ("outer.checkpoint_every", ["0"]),
        ("island.device", ["''"]),
        ("island.threads", ["0", "-1"]),
        ("island.micro_batch", ["0"]),
        ("island.read_every", ["0"]),
        ("island.checkpoint_every", ["0", "-1"]),
        ("island.checkpoint_keep", ["0", "-1"]),
        ("island.evaluate_every", ["-1"]),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_with_its_path(path: str, values: list[str]) -> None:
    base = ["inner.optimizer.betas=[0.9, 0.95]"] if path.startswith("inner.optimizer.betas.") else []
    for value in values:
        assert refusal(*base, f"{path}={value}").startswith(f"test.toml: at {path}: must be ")


@pytest.mark.parametrize("key", ["lr=0", "momentum=1", "momentum=-0.1", "weight_decay=-1.0", "adamw_lr=0"])
def test_muon_has_bounds_as_well(key: str) -> None:
    assert f"at inner.optimizer.{key.split('=')[0]}: must be " in refusal(
        "inner.optimizer={type='muon'}", f"inner.optimizer.{key}"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("island.checkpoint_every=0", "at island.checkpoint_every: must be an integer >= 1, not 0"),
        ("outer.checkpoint_every=true", "at outer.checkpoint_every: must be an integer >= 1, not true"),
        (
            "seed=9223372036854775808",
            "at seed: must be an integer of at most 64 bits, not 9223372036854775808",
        ),
        ("island.threads=1000000", "at island.threads: must be an integer from 1 to 1024, not 1000000"),
        ("objective.outer_lr=1e39", "at objective.outer_lr: must be a number from 1e-30 to 1000, not 1e+39"),
        ("inner.clip_norm=1e-300", "at inner.clip_norm: must be a number from 1e-30 to 1e30, not 1e-300"),
        ("inner.z_loss=1e300", "at inner.z_loss: must be a number from 0 to 1000, not 1e+300"),
        (
            "inner.optimizer.eps=1e-60",
            "at inner.optimizer.eps: must be a number from 1e-30 to 1e30, not 1e-60",
        ),
        ("outer.codec=int4", "at outer.codec: must be 'fp32', 'bf16' or 'int8', not 'int4'"),
        ("island.profile=1", "at island.profile: must be true or false, not 1"),
        ("inner=3", "at inner: must be a table, not 3"),
        ("model.from=[]", "at model.from: must be a path that is not empty and has no NUL, not []"),
        (
            "inner.optimizer={lr=1.0}",
            "at inner.optimizer: missing required key `type`, which is 'adamw' or 'muon'",
        ),
        ("inner.optimizer.type=sgd", "at inner.optimizer.type: must be 'adamw' or 'muon', not 'sgd'"),
        (
            "sources.books.keep.score=3",
            "at sources.books.keep.score: must be an array of at least one value or a table, not 3",
        ),
        (
            "sources.a/b.code=stdlib",
            "at sources: a key must be a string of letters, digits, - and _ only, at most 60, "
            "since it names a directory, not 'a/b'",
        ),
        (
            "stage.0.weights={}",
            "at stage.0: unknown key `weights`; the keys here are until and mixture",
        ),
        (
            "sources.code.files=here",
            "at sources.code: unknown key `files`; the keys here are text, code, jsonl, parquet, dataset, "
            "revision, config, split, data_files, column, columns, keep, separator, suffix, partitioned and "
            "skip_bad_rows",
        ),
        ("model.own=true", "at model: give exactly one of preset, from and own, not preset and own"),
        (
            "inner.tokens_per_step=100",
            "at inner.tokens_per_step: must be a multiple of inner.context_length, 64, not 100",
        ),
        ("stage.1.until=99", "at stage.1.until: must be above 100, where the stage before ends, not 99"),
    ],
)
def test_a_refusal_says_where_what_is_allowed_and_what_was_given(text: str, sentence: str) -> None:
    assert refusal(text) == f"test.toml: {sentence}"


def test_a_long_value_is_not_repeated_in_full() -> None:
    message = refusal(f"objective.outer_lr={'x' * 1000}")
    assert "xxx" in message
    assert len(message) < 150


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["model={}"], "model"),
        (["model={from='a-model', vocab_size=512}"], "model.vocab_size"),
        (["tokenizer={}"], "tokenizer"),
        (["model={own=true}"], "tokenizer"),
        (["model={own=true}", "tokenizer={}"], "sources"),
        (["model={own=true}", "tokenizer={}", "sources={}"], "stage.0.mixture"),
        (["sources={}"], "sources"),
        (["sources.books={}"], "sources.books"),
        (["sources.books.partitioned=true"], "sources.books.text"),
        (["sources.BOOKS.code=stdlib"], "sources.BOOKS"),
        (["sources.books.keep.score={}"], "sources.books.keep.score"),
        (["sources.books.keep.score={min=2, max=1}"], "sources.books.keep.score"),
        (["stage.1.mixture.books=0"], "stage.1.mixture"),
        (["stage.1.mixture={}"], "stage.1.mixture"),
        (["stage.0.mixture={books=1e308, code=1e308}"], "stage.0.mixture"),
        (["sources.mail.partitioned=true", "stage.1.mixture={mail=1}"], "stage.1.mixture"),
        (["stage.1.until=1000000000000"], "stage.1.until"),
        (["model.lora={}"], "model.lora"),
        (["model={own=true}", "tokenizer={}", "sources={}", "objective={type='sft'}"], "objective.type"),
        (["inner.z_loss=1e-4", "objective={type='dpo'}"], "inner.z_loss"),
        (["inner.z_loss=1e-4", "objective={type='distill'}"], "inner.z_loss"),
    ],
)
def test_a_rule_that_is_broken_names_its_key(overrides: list[str], path: str) -> None:
    assert refusal(*overrides).startswith(f"test.toml: at {path}: ")


@pytest.mark.parametrize(
    "text",
    [
        "island.checkpoint_to=''",
        "island.evaluate_every=0",
        "inner.z_loss=0",
        "inner.optimizer.weight_decay=0",
        "inner.optimizer.betas=[0, 0]",
        "inner.schedule.final=1",
        "objective.outer_momentum=0",
        "objective.outer_lr=1",
        "model={from='a-model', lora={rank=4, layers=['q_proj']}}",
        "seed=-1",
        "sources.code.suffix=''",
        'sources.books.separator="\\u0000"',
        "sources.books.keep.score={min=1, max=1}",
        "stage.0.mixture.code=0",
        "data_url=file:///mnt/data",
        f"name={'a' * 55}",
        "sources.bücher.text=bücher.txt",
    ],
)
def test_what_makes_sense_is_allowed(text: str) -> None:
    with_overrides(text)


@pytest.mark.parametrize(
    "texts",
    [
        ["objective={type='dpo', label_smoothing=0}"],
        ["objective={type='distill', cross_entropy=1}", "chat.too_long='cut'"],
        ["objective={type='sft'}", "sources.books.columns={messages='dialog', system='persona'}"],
        ["objective={type='sft'}", "sources.books.columns={prompt=['task', 'input'], completion='answer'}"],
        ["objective={type='simpo'}", "sources.books.columns={chosen='good', rejected='bad'}"],
        ["objective={type='ipo'}", "sources.books.columns={prompt='q', chosen='good', rejected='bad'}"],
    ],
)
def test_an_objective_on_rows_is_allowed_over_tables(texts: list[str]) -> None:
    with_overrides(ROWS, *texts)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["chat.train_on='last'"], "chat: has no effect with this objective"),
        (["sources.books.columns={messages='m'}"], "sources.books.columns: has no effect"),
        (
            ["objective.type='sft'", "sources.books.column='body'"],
            "sources.books.column: this objective needs",
        ),
        (
            ["objective.type='sft'", "sources.books.columns={prompt='q'}"],
            "sources.books.columns: give messages",
        ),
        (
            ["objective.type='dpo'", "sources.books.columns={messages='m'}"],
            "sources.books.columns: give chosen",
        ),
        (["objective.type='dpo'", "sources.books.columns={tools='m'}"], "not neither"),
        (["objective.type='dpo'", "chat.too_long='cut'"], "chat.too_long: a pair that is cut compares"),
        (["objective.type='sft'", "chat.train_on='first'"], "chat.train_on: must be 'all' or 'last'"),
    ],
)
def test_what_does_not_fit_an_objective_is_refused(texts: list[str], sentence: str) -> None:
    assert sentence in refusal(ROWS, *texts)


def test_an_objective_on_rows_refuses_text_and_code() -> None:
    assert "at sources.books.text: this objective needs rows; give jsonl" in refusal("objective.type='sft'")


@pytest.mark.parametrize("text", ["objective.outer_lr=inf", "inner.clip_norm=inf"])
def test_an_infinite_number_is_refused_or_survives_recipe_json(text: str) -> None:
    try:
        recipe = with_overrides(text)
    except UserError:
        return
    recipes.parse(msgspec.json.decode(msgspec.json.encode(recipe.shared())), "recipe.json")


@pytest.mark.parametrize("text", ["inner.optimizer={lr=1.0}", "inner.optimizer.type=sgd"])
def test_an_optimizer_that_is_none_is_answered_with_those_there_are(text: str) -> None:
    assert "adamw" in refusal(text)
    assert "muon" in refusal(text)


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


def built_in_recipes() -> list[Recipe]:
    """Those that ship with atoll, with all their variants; a pipeline is none."""
    found: list[Recipe] = []
    for path in recipes.BUILT_IN_DIR.glob("*.toml"):
        if "[[step]]" not in path.read_text("utf-8"):
            found += [recipes.load(path, variant=name) for name in recipes.variants(path).names or [""]]
    return found


def test_every_built_in_recipe_loads() -> None:
    assert {"demo", "intellect-1", "small-dpo-firm"} <= {recipe.name for recipe in built_in_recipes()}


def test_a_built_in_recipe_reads_no_file_of_its_authors_machine() -> None:
    for recipe in built_in_recipes():
        for source in recipe.sources.values():
            from_the_package = (source.text or source.jsonl or "").startswith("package:")
            from_the_hub = source.dataset is not None and source.revision is not None
            assert from_the_package or source.code == "stdlib" or from_the_hub


# -------------------------------------------------------------------------------------------------- overrides
def test_overrides_reach_into_tables_and_lists() -> None:
    recipe = with_overrides(
        "objective.outer_lr=0.5",
        "stage.0.until=50",
        "inner.optimizer.betas=[0.8, 0.9]",
        "inner.schedule.final=0.1",
    )
    assert recipe.objective.outer_lr == 0.5
    assert [stage.until for stage in recipe.stage] == [50, 200]
    assert recipe.inner.optimizer.betas == (0.8, 0.9)
    assert recipe.inner.schedule.final == 0.1


@pytest.mark.parametrize("text", ["cpu", "cuda:0", "mps", '"cpu"'])
def test_words_need_no_quotes(text: str) -> None:
    assert with_overrides(f"island.device={text}").island.device == text.strip('"')


@pytest.mark.parametrize(
    "text", ["objective.outer_lr", "=3", "stage.7.until=9", "stage.first.until=9", "name.of.it=3"]
)
def test_an_override_that_leads_nowhere_is_refused(text: str) -> None:
    assert refusal(text).startswith(text)


def test_joining_takes_overrides_of_the_island_only() -> None:
    assert recipes.own_island(["island.threads=3"]).threads == 3
    with pytest.raises(UserError, match=r"objective: the run's recipe decides this"):
        recipes.own_island(["island.threads=3", "objective.outer_lr=0.1"])
    with pytest.raises(UserError, match=r"^this machine's settings: at island.threads: must be an integer"):
        recipes.own_island(["island.threads=many"])


def test_an_own_island_table_is_checked_like_the_recipe() -> None:
    with pytest.raises(UserError, match="micro_batch"):
        recipes.with_island(with_overrides().shared(), recipes.own_island(["island.micro_batch=0"]))
    with pytest.raises(UserError, match=r"at island\.micro_batch"):
        recipes.with_island(with_overrides().shared(), recipes.Island(micro_batch=0))


def test_a_runs_recipe_is_joined_with_an_island_of_ones_own() -> None:
    own = recipes.own_island(["island.threads=3"])
    recipe = recipes.with_island(with_overrides().shared(), own)
    assert recipe.island == own
    assert recipe.digest() == with_overrides().digest()


# ----------------------------------------------------------------------------------------------------- digest
def test_the_digest_does_not_cover_the_island() -> None:
    assert with_overrides("island.threads=7", "island.device=cpu").digest() == with_overrides().digest()


def test_the_digest_covers_everything_else() -> None:
    overrides = [
        "objective.outer_lr=0.5",
        "seed=1",
        "stage.0.mixture.books=81",
        "sources.books.text=others.txt",
        "inner.z_loss=0.1",
    ]
    digests = {with_overrides(override).digest() for override in overrides} | {with_overrides().digest()}
    assert len(digests) == len(overrides) + 1


def test_a_default_written_out_leaves_the_digest_as_it_is() -> None:
    assert (
        with_overrides("outer.codec=int8", "objective.outer_lr=0.7", "seed=0").digest()
        == with_overrides().digest()
    )


def test_a_run_keeps_its_digest_through_its_recipe_json(tmp_path) -> None:
    recipe = with_overrides()
    path = tmp_path / "recipe.json"
    path.write_bytes(msgspec.json.encode(recipe.shared()))
    assert recipes.load(path).digest() == recipe.digest()


# ------------------------------------------------------------------------------------------------ differences
def test_differing_keys_are_named_by_their_dotted_path() -> None:
    other = with_overrides(
        "objective.outer_lr=0.1", "stage.1.until=300", "sources.more.text=more.txt", "island.threads=9"
    )
    keys = recipes.differing_keys(with_overrides(), other)
    assert "objective.outer_lr" in keys
    assert "stage.1.until" in keys
    assert "sources.more.text" in keys
    assert not [key for key in keys if key.startswith("island")]


def test_equal_recipes_differ_in_nothing() -> None:
    assert recipes.differing_keys(with_overrides(), with_overrides("island.threads=9")) == []


def test_the_last_outer_step_covers_a_rest_of_inner_steps() -> None:
    assert with_overrides().num_outer_steps == 7  # 200 inner steps, 30 each


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stage.2.until=1", "stage is an array of 2, whose last is stage.1"),
        ("stage.last.until=1", "stage is an array of 2, whose last is stage.1"),
        ("outer.inner_steps.x=1", "outer.inner_steps is a value, and has no parts"),
    ],
)
def test_an_override_that_leads_nowhere_says_where_its_path_ends(text, reason) -> None:
    with pytest.raises(UserError, match=f"no such place in the recipe: {reason}"):
        override(tree(), text)


def test_a_mixture_of_one_source_need_not_be_said() -> None:
    without = "[sources.code]\ncode = 'stdlib'\n"
    assert recipes.parse(tomllib.loads(ONE_SOURCE), "one.toml").mixture(0) == {"books": 1.0}
    with pytest.raises(UserError, match=r"at stage\.0\.mixture: at least one source must weigh more than 0"):
        recipes.parse(tomllib.loads(ONE_SOURCE + without), "two.toml")


def test_the_outer_optimizer_is_the_objectives() -> None:
    both = [
        (recipe.objective.outer_lr, recipe.objective.outer_momentum)
        for recipe in (with_overrides(ROWS, f"objective={{type='{name}'}}") for name in ("sft", "dpo"))
    ]
    assert both == [(1.0, 0.5), (1.0, 0.0)]
    assert refusal("outer.lr=1").startswith("test.toml: at outer: unknown key `lr`")
