"""What must agree with what in a recipe: rules over several values, where each alone is allowed by its type.

A rule is a function that yields the faults it finds. `RULES` has them in the order in which they are asked.
"""

import math
from collections.abc import Callable, Iterator
from itertools import chain

from atoll.recipe.chat import Chat
from atoll.recipe.data import KINDS, Columns, Range, Source
from atoll.recipe.fault import Fault
from atoll.recipe.objective import Pretrain
from atoll.recipe.recipe import Recipe
from atoll.samples import TURN_BITS
from atoll.words import listed

Rule = Callable[[Recipe], Iterator[Fault]]
MAX_SAMPLES = 1 << TURN_BITS  # the numbers beyond are those of partitions


def check(recipe: Recipe, where: str) -> None:
    """Raise UserError about the first rule that a recipe breaks; `where` names the recipe's origin."""
    for fault in chain.from_iterable(rule(recipe) for rule in RULES):
        raise fault.error(where)


# ------------------------------------------------------------------------------------------------------ model
def a_model_is_one_of_three_things(recipe: Recipe) -> Iterator[Fault]:
    model = recipe.model
    given = {"preset": model.preset is not None, "from": model.from_ is not None, "own": model.own}
    yield from _exactly_one("model", given)


def only_a_copy_has_a_base_model(recipe: Recipe) -> Iterator[Fault]:
    if recipe.about.base_model is not None and recipe.model.from_ is None:
        yield Fault("about.base_model", "only a model that begins with model.from has one; leave it out")


def only_a_preset_has_dimensions_to_choose(recipe: Recipe) -> Iterator[Fault]:
    if recipe.model.preset is None:
        for name in recipe.model.dimensions:
            yield Fault(f"model.{name}", "only a preset's dimensions can be chosen; leave it out")


def adapters_are_of_a_checkpoint(recipe: Recipe) -> Iterator[Fault]:
    if recipe.model.lora is not None and recipe.model.from_ is None:
        yield Fault("model.lora", "adapters are trained beside a checkpoint's weights; give model.from")


def a_base_is_of_a_checkpoint(recipe: Recipe) -> Iterator[Fault]:
    if recipe.island.base is not None and recipe.model.from_ is None:
        yield Fault("island.base", "has no effect without model.from; leave it out")


# -------------------------------------------------------------------------------------------------- objective
def an_own_loop_has_an_objective_of_its_own(recipe: Recipe) -> Iterator[Fault]:
    if recipe.model.own and not isinstance(recipe.objective, Pretrain):
        yield Fault(
            "objective.type", "with model.own your program says what is minimised; only 'pretrain' is left"
        )


def z_loss_is_part_of_a_cross_entropy(recipe: Recipe) -> Iterator[Fault]:
    if recipe.inner.z_loss and not recipe.objective.has_z_loss:
        yield Fault("inner.z_loss", "has no effect with this objective; leave it out")


# ------------------------------------------------------------------------------------------------------- data
def a_module_of_your_own_has_samples_of_its_own(recipe: Recipe) -> Iterator[Fault]:
    if recipe.model.own:
        tables = {
            "tokenizer": recipe.tokenizer.train or recipe.tokenizer.file,
            "sources": recipe.sources,
            **{f"stage.{number}.mixture": stage.mixture for number, stage in enumerate(recipe.stage)},
        }
        for path in (path for path, given in tables.items() if given):
            yield Fault(path, "with model.own the samples are your program's; leave it out")


def text_becomes_tokens_in_one_way(recipe: Recipe) -> Iterator[Fault]:
    if not recipe.model.own:
        tokenizer = recipe.tokenizer
        given = {"train": tokenizer.train is not None, "file": tokenizer.file is not None}
        yield from _exactly_one("tokenizer", given)


def there_is_something_to_train_on(recipe: Recipe) -> Iterator[Fault]:
    if not recipe.model.own and not recipe.sources:
        yield Fault("sources", "give at least one")


def each_source_is_of_one_kind(recipe: Recipe) -> Iterator[Fault]:
    for name, source in recipe.sources.items():
        path = f"sources.{name}"
        if source.partitioned and source.kinds:
            yield Fault(
                f"{path}.{source.kinds[0]}", "it is partitioned, so each island says where its part is"
            )
        if not source.partitioned:
            yield from _exactly_one(path, {kind: kind in source.kinds for kind in KINDS})


def each_source_has_a_directory_of_its_own(recipe: Recipe) -> Iterator[Fault]:
    known: dict[str, str] = {}
    for name in recipe.sources:
        other = known.setdefault(name.casefold(), name)
        if other != name:
            yield Fault(
                f"sources.{name}", f"on some systems this is the directory of {other!r}; give another name"
            )


def a_range_has_something_in_it(recipe: Recipe) -> Iterator[Fault]:
    for name, source in recipe.sources.items():
        for column, wanted in source.keep.items():
            path = f"sources.{name}.keep.{column}"
            if not isinstance(wanted, Range):
                continue
            if wanted.min is None and wanted.max is None:
                yield Fault(path, "give min, max or both")
            elif wanted.min is not None and wanted.max is not None and wanted.min > wanted.max:
                yield Fault(path, f"min must not be above max, and {wanted.min} is above {wanted.max}")


# ------------------------------------------------------------------------------------------------------- rows
def a_stream_of_documents_has_no_chats(recipe: Recipe) -> Iterator[Fault]:
    if recipe.objective.rows == "stream":
        if recipe.chat != Chat():
            yield Fault("chat", "has no effect with this objective, which trains on documents; leave it out")
        for name, source in recipe.sources.items():
            if source.columns is not None:
                yield Fault(
                    f"sources.{name}.columns",
                    "has no effect with this objective; the column of the text is `column`",
                )


def chats_are_rows_of_tables(recipe: Recipe) -> Iterator[Fault]:
    for name, source in recipe.sources.items() if recipe.objective.rows != "stream" else ():
        for kind in source.kinds:
            if kind not in ("jsonl", "parquet", "dataset"):
                yield Fault(
                    f"sources.{name}.{kind}", "this objective needs rows; give jsonl, parquet or dataset"
                )
        if source.column != Source().column:
            yield Fault(f"sources.{name}.column", "this objective needs rows; name their parts in `columns`")


def the_columns_of_a_row_are_complete(recipe: Recipe) -> Iterator[Fault]:
    needed = {
        "chats": (["messages"], ["prompt", "completion"]),
        "pairs": (["chosen", "rejected"], ["prompt", "chosen", "rejected"]),
        "stream": (),
    }[recipe.objective.rows]
    for name, source in recipe.sources.items():
        given = _given(source.columns)
        if source.columns is not None and needed and given not in needed:
            wanted = " or ".join(listed(keys) for keys in needed)
            yield Fault(
                f"sources.{name}.columns", f"give {wanted}, not {listed(given) if given else 'neither'}"
            )


def a_pair_is_not_cut(recipe: Recipe) -> Iterator[Fault]:
    if recipe.objective.rows == "pairs" and recipe.chat.too_long == "cut":
        yield Fault(
            "chat.too_long",
            "a pair that is cut compares other answers than those that were judged; leave it at 'skip'",
        )


def _given(columns: Columns | None) -> list[str]:
    """Which of the columns that hold turns are given."""
    keys = ("messages", "prompt", "completion", "chosen", "rejected")
    return [key for key in keys if getattr(columns, key, None) is not None]


# ----------------------------------------------------------------------------------------------------- stages
def stages_follow_one_another(recipe: Recipe) -> Iterator[Fault]:
    before = 0
    for number, stage in enumerate(recipe.stage):
        if stage.until <= before:
            yield Fault(
                f"stage.{number}.until",
                f"must be above {before}, where the stage before ends, not {stage.until}",
            )
        before = stage.until


def a_mixture_is_of_sources_that_are_there(recipe: Recipe) -> Iterator[Fault]:
    for number, stage in enumerate(recipe.stage):
        for name in stage.mixture:
            if name not in recipe.sources:
                yield Fault(f"stage.{number}.mixture", f"no source is named {name!r}")


def a_mixture_can_be_shared_out(recipe: Recipe) -> Iterator[Fault]:
    for number, stage in enumerate(recipe.stage if not recipe.model.own else ()):
        path = f"stage.{number}.mixture"
        if not sum(stage.mixture.values()):
            yield Fault(path, "at least one source must weigh more than 0")
        elif not math.isfinite(sum(stage.mixture.values())):
            yield Fault(path, "the weights' sum is too large for a number; give smaller ones")
        elif not any(recipe.mixture(number).values()):
            yield Fault(path, "at least one source that is not partitioned must weigh more than 0")


# ------------------------------------------------------------------------------------------------------ steps
def a_step_is_whole_windows(recipe: Recipe) -> Iterator[Fault]:
    tokens, length = recipe.inner.tokens_per_step, recipe.inner.context_length
    if tokens % length:
        yield Fault(
            "inner.tokens_per_step", f"must be a multiple of inner.context_length, {length}, not {tokens}"
        )


def samples_can_be_numbered(recipe: Recipe) -> Iterator[Fault]:
    last = len(recipe.stage) - 1
    samples = recipe.stage[last].until * recipe.windows_per_step
    if samples > MAX_SAMPLES:
        yield Fault(
            f"stage.{last}.until",
            f"an island would read {samples:,} windows by then, and a run numbers at most {MAX_SAMPLES:,}",
        )


RULES: tuple[Rule, ...] = (
    a_model_is_one_of_three_things,
    only_a_copy_has_a_base_model,
    only_a_preset_has_dimensions_to_choose,
    adapters_are_of_a_checkpoint,
    a_base_is_of_a_checkpoint,
    an_own_loop_has_an_objective_of_its_own,
    z_loss_is_part_of_a_cross_entropy,
    a_module_of_your_own_has_samples_of_its_own,
    text_becomes_tokens_in_one_way,
    there_is_something_to_train_on,
    each_source_is_of_one_kind,
    each_source_has_a_directory_of_its_own,
    a_range_has_something_in_it,
    a_stream_of_documents_has_no_chats,
    chats_are_rows_of_tables,
    the_columns_of_a_row_are_complete,
    a_pair_is_not_cut,
    stages_follow_one_another,
    a_mixture_is_of_sources_that_are_there,
    a_mixture_can_be_shared_out,
    a_step_is_whole_windows,
    samples_can_be_numbered,
)


def _exactly_one(path: str, given: dict[str, bool]) -> Iterator[Fault]:
    """The fault of a table in which not exactly one of these keys is given."""
    names = [name for name, is_given in given.items() if is_given]
    if len(names) != 1:
        yield Fault(path, f"give exactly one of {listed(given)}, not {listed(names) if names else 'none'}")
