"""What a pipeline would do, as text, with nothing of it done; the recipes that it names are read for it."""

import textwrap
from collections.abc import Iterator

import msgspec

from atoll import recipe as recipes
from atoll.post.pipeline.inputs import recipes_of
from atoll.post.pipeline.references import referred
from atoll.recipe.merge import Merge, Search
from atoll.recipe.metric import By
from atoll.recipe.pipeline import (
    AnyStep,
    Capture,
    Evaluate,
    EvolveStep,
    Export,
    Measure,
    MergeStep,
    Pipeline,
    Prepare,
    Train,
)
from atoll.recipe.variants import Variant
from atoll.terminal.figures import human
from atoll.words import listed

WIDTH = 110


def plan(pipeline: Pipeline) -> str:
    """The steps in their order, with what each is made from, and the notes of steps and variants.

    Raises UserError for a recipe of a step that cannot be read.
    """
    numbers = {step.name: number for number, step in enumerate(pipeline.step, start=1)}
    lines: list[str] = []
    for step in pipeline.step:
        origin = " + ".join(str(numbers[name]) for name in referred(step))
        head = f"{numbers[step.name]:>3}  {step.name}: {_what(step)}" + (
            f"  (from {origin})" if origin else ""
        )
        lines += _wrapped(head, 5)
        lines += _wrapped(f"     {step.note}", 5) if step.note else []
        for variant in _variants(step):
            words = [variant.note, f"({', '.join(variant.set)})"]
            lines += _wrapped(f"       {variant.name}: {' '.join(filter(None, words))}", 10)
    return "\n".join(lines) + "\n"


def _what(step: AnyStep) -> str:
    """What a step does, in words."""
    match step:
        case Prepare():
            return f"prepare the data of {step.recipe}, {listed(recipes_of(step)[0].sources)}"
        case Capture():
            return f"capture what {step.teacher or 'the reference'} says of the rows of {step.of}"
        case Train():
            return f"train {step.recipe}, {_runs(step)}"
        case EvolveStep():
            return f"evolve the instructions in {step.settings.seeds} with {step.settings.model}"
        case MergeStep():
            by = f", chosen by {_by(step.by)}" if step.by else ""
            base = f" onto {step.base}" if step.base else ""
            return f"merge {listed(step.models)}{base} by {_method(step.settings)}{by}"
        case Measure():
            return f"measure {listed(step.models)} on what {step.on} holds out"
        case Evaluate():
            return f"evaluate {listed(step.models)} on {listed(step.tasks)}"
        case Export():
            return f"export {step.of} to {step.to}"


def _method(settings: Merge) -> str:
    """A method with what was chosen about it."""
    plain = msgspec.to_builtins(settings)
    name = plain.pop("method")
    if isinstance(settings, Search):
        return f"{name} of {_method(settings.of)} in {settings.tries} tries"
    usual = msgspec.to_builtins(type(settings)())
    return " ".join([name, *(f"{key}={value}" for key, value in plain.items() if value != usual[key])])


def _runs(step: Train) -> str:
    """How many runs a step trains, on how many tokens, and how they are ranked."""
    found = recipes_of(step)
    objective = found[0].objective.__struct_config__.tag
    tokens = sorted({each.stage[-1].until * each.inner.tokens_per_step for each in found})
    amount = human(tokens[0]) if len(tokens) == 1 else f"{human(tokens[0])} to {human(tokens[-1])}"
    if len(found) == 1:
        return f"{objective} on {amount} tokens of each island"
    by = step.by or recipes.variants(step.recipe).rank_by
    ranked = _by(by) if by else "held-out loss"
    return (
        f"{objective}, {len(found)} variants on {amount} tokens of each island, "
        + (f"{step.at_once} at once, " if step.at_once > 1 else "")
        + f"ranked by {ranked}"
    )


def _by(by: By) -> str:
    if by.heldout is not None:
        return f"held-out loss on {by.heldout}"
    return f"{by.task}" + (f" on {by.limit:,} questions" if by.limit else "")


def _variants(step: AnyStep) -> Iterator[Variant]:
    if isinstance(step, Train):
        yield from step.variant or recipes.variants(step.recipe).variant


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
