"""A pipeline: steps that make models and data out of one another (`atoll pipeline`).

Where a step wants what another one made, it says `@NAME`; `@NAME:VARIANT` is one of several, and `@NAME:*`
all of them. What a step makes: `prepare` and `capture` a prepared run, `train` a checkpoint (of several
variants the best), `merge` and `export` a checkpoint, `evolve` a file of conversations, `evaluate` and
`measure` results.
"""

from typing import Annotated

from msgspec import Meta, field

from atoll.recipe.bounds import NonEmptyStr, PathStr, PositiveInt, RunName
from atoll.recipe.evolve import Evolve
from atoll.recipe.merge import Dtype, Merge
from atoll.recipe.metric import By
from atoll.recipe.table import Table
from atoll.recipe.variants import Variant

Overrides = list[NonEmptyStr]
Some = Annotated[list[PathStr], Meta(min_length=1, description="an array of at least one path or @STEP")]


class Step(Table, frozen=True, kw_only=True, tag_field="do"):
    """One step. It is skipped where its settings and all that goes into it are what they were."""

    name: RunName
    note: str = ""  # for people, in the plan; a change of it changes nothing


class Prepare(Step, frozen=True, kw_only=True, tag="prepare"):
    """Prepared data of a recipe, for `capture` and for `train` steps whose recipes have the same sources."""

    recipe: PathStr
    set: Overrides = field(default_factory=Overrides)
    variant: RunName | None = None  # of a recipe that has some


class Capture(Step, frozen=True, kw_only=True, tag="capture"):
    """The prepared data of another step, with what a model says of them."""

    of: PathStr
    teacher: PathStr | None = None  # none given: the reference, which is the model that the run starts from


class Train(Step, frozen=True, kw_only=True, tag="train"):
    """A recipe's run, or the runs of all its variants, and a checkpoint of each."""

    recipe: PathStr
    set: Overrides = field(default_factory=Overrides)
    data: PathStr | None = None  # a `prepare` or `capture` step whose prepared data are taken
    variant: list[Variant] = field(default_factory=list[Variant])  # in the place of the recipe's
    by: By | None = None  # what variants are ranked by; none given: as the recipe says
    at_once: PositiveInt = 1  # variants that train side by side
    islands: PositiveInt = 1  # of each, on this machine
    # Kill an island in the middle and start it again, as the demo does: the swarm must not mind.
    drill: bool = False


class EvolveStep(Step, frozen=True, kw_only=True, tag="evolve"):
    """Evolved instructions and their answers."""

    settings: Evolve


class MergeStep(Step, frozen=True, kw_only=True, tag="merge"):
    """One checkpoint of several."""

    models: Some
    settings: Merge
    base: PathStr | None = None
    dtype: Dtype | None = None
    by: By | None = None


class Measure(Step, frozen=True, kw_only=True, tag="measure"):
    """What the objective of prepared data says of models, on what was held out."""

    models: Some
    on: PathStr


class Evaluate(Step, frozen=True, kw_only=True, tag="evaluate"):
    """Models on the tasks of `lm-eval`."""

    models: Some
    tasks: list[NonEmptyStr]
    limit: PositiveInt | None = None  # questions of each task; none given: all


class Export(Step, frozen=True, kw_only=True, tag="export"):
    """A checkpoint, where people look for it, with the story of how it was made."""

    of: PathStr
    to: PathStr  # a directory, from where the command is given


AnyStep = Prepare | Capture | Train | EvolveStep | MergeStep | Measure | Evaluate | Export


class Pipeline(Table, frozen=True, kw_only=True):
    """Steps, in the order in which they are made."""

    name: RunName
    step: Annotated[list[AnyStep], Meta(min_length=1, description="an array of at least one step")]
    # What summary.json holds, by name: `STEP.KEY` of what a step has found out.
    summary: dict[str, NonEmptyStr] = field(default_factory=dict[str, str])
