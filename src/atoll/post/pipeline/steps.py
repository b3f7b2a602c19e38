"""What each kind of step does, in a directory of its own: the verbs that a person would type.

Every verb goes on where it was interrupted; so does a step.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.files import atomic_dir
from atoll.given import expanded, named
from atoll.post.command import Failed, atoll
from atoll.post.evolve import evolve
from atoll.post.evolve.evolve import RESULT
from atoll.post.merge import merge
from atoll.post.metric import HeldoutLoss, metric_of
from atoll.post.pipeline.references import References
from atoll.post.training import Training, take_prepared
from atoll.post.variants import SCORES, Ranking, train_all
from atoll.recipe.metric import By
from atoll.recipe.pipeline import (
    AnyStep,
    Capture,
    Evaluate,
    EvolveStep,
    Export,
    Measure,
    MergeStep,
    Prepare,
    Train,
)
from atoll.run.directory import RunDir

Say = Callable[[str], None]
MARKER = "made-by-atoll-pipeline"


class Made(NamedTuple):
    """What a step has made."""

    path: Path
    parts: dict[str, Path] = {}  # noqa: RUF012 (a tuple's default is never changed)
    found: dict[str, Any] = {}  # noqa: RUF012


class Place(NamedTuple):
    """Where a step works, and what it is given."""

    directory: Path
    references: References
    key: str  # for a server of models
    say: Say


def do(step: AnyStep, place: Place) -> Made:
    """Do a step. Raises UserError, or Failed where a verb fails; what was made until then stays."""
    match step:
        case Prepare():
            return _prepare(step, place)
        case Capture():
            return _capture(step, place)
        case Train():
            return _train(step, place)
        case EvolveStep():
            return _evolve(step, place)
        case MergeStep():
            return _merge(step, place)
        case Measure():
            return _measure(step, place)
        case Evaluate():
            return _evaluate(step, place)
        case Export():
            return _export(step, place)


def _prepare(step: Prepare, place: Place) -> Made:
    run = place.directory / "run"
    overrides = [place.references.path(text) for text in step.set]
    variant = ["--variant", step.variant] if step.variant else []
    atoll(
        "prepare", step.recipe, *overrides, *variant, "--dir", str(run), log=place.directory / "prepare.log"
    )
    return Made(run)


def _capture(step: Capture, place: Place) -> Made:
    source, run = RunDir(Path(place.references.path(step.of))), RunDir(place.directory / "run")
    run.claim(recipes.load(source.recipe))
    take_prepared(source, run)
    teacher = ["--teacher", place.references.path(step.teacher)] if step.teacher else []
    atoll("capture", str(run.path), *teacher, log=place.directory / "capture.log")
    return Made(run.path)


def _train(step: Train, place: Place) -> Made:
    how = Training(
        data=Path(place.references.path(step.data)) if step.data else None,
        islands=step.islands,
        drill=step.drill,
        at_once=step.at_once,
    )
    ranking = train_all(
        step.recipe,
        [place.references.path(text) for text in step.set],
        place.directory,
        how,
        variants=step.variant,
        by=_by(step.by, place) if step.by else None,
        say=place.say,
    )
    best = ranking.best
    assert best.model is not None
    models = {one.name: one.model for one in ranking.runs if one.name and one.model is not None}
    found = {"metric": ranking.metric, "value": best.value, "best": best.name, "variants": _table(ranking)}
    return Made(best.model, models, found)


def _table(ranking: Ranking) -> list[dict[str, Any]]:
    return [{"name": one.name, "value": one.value, "failure": one.failure} for one in ranking.runs]


def _by(by: By, place: Place) -> By:
    """The same, with a path in the place of a reference."""
    if by.heldout is None:
        return by
    return msgspec.structs.replace(by, heldout=place.references.path(by.heldout))


def _evolve(step: EvolveStep, place: Place) -> Made:
    seeds = place.references.path(step.settings.seeds)
    out = place.directory / "evolved"
    report = evolve(msgspec.structs.replace(step.settings, seeds=seeds), out, place.key)
    if report.not_reached:
        raise Failed(f"{report.not_reached:,} seeds were not reached: {report.end}")
    if not report.written:
        raise Failed(f"no conversation was made; see {out / 'report.json'}")
    return Made(out / RESULT, {}, msgspec.to_builtins(report))


def _merge(step: MergeStep, place: Place) -> Made:
    models = [Path(path) for path in place.references.paths(step.models)]
    metric = metric_of(_by(step.by, place), place.directory / SCORES) if step.by else None
    made = merge(
        step.settings,
        models,
        place.directory / "model",
        base=Path(place.references.path(step.base)) if step.base else None,
        dtype=step.dtype,
        metric=metric,
        say=place.say,
    )
    found: dict[str, Any] = {"best": made.best.name}
    if metric is not None:
        parents = [metric(path) for path in models]
        found |= {"metric": metric.name, "value": made.best.value, "parents": parents}
        found["candidates"] = [{"name": one.name, "value": one.value} for one in made.looked_at]
    return Made(made.out, {}, found)


def _measure(step: Measure, place: Place) -> Made:
    metric = HeldoutLoss(Path(place.references.path(step.on)))
    found = {
        text.removeprefix("@").replace(":", "-"): metric.figures(Path(place.references.path(text)))
        for text in step.models
    }
    out = place.directory / "measured.json"
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return Made(out, {}, found)


def _evaluate(step: Evaluate, place: Place) -> Made:
    models, out = place.references.paths(step.models), place.directory / "results.json"
    limit = ["--limit", str(step.limit)] if step.limit else []
    tasks = ["--tasks", ",".join(step.tasks)]
    atoll("evaluate", *models, *tasks, *limit, "--json", log=place.directory / "evaluate.log", output=out)
    try:
        return Made(out, {}, {"results": msgspec.json.decode(out.read_bytes())})
    except msgspec.DecodeError as error:
        raise Failed(f"what `atoll evaluate` printed is not JSON ({error}): {out}") from error


def _export(step: Export, place: Place) -> Made:
    source, out = Path(place.references.path(step.of)), expanded(step.to)
    ours = out / MARKER
    if not (source / "config.json").is_file():
        raise UserError(f"{named(source)}: no checkpoint is here (no config.json)")
    if out.exists():
        if not out.is_dir():
            raise UserError(f"{named(out)}: a file is there; choose another directory")
        if any(out.iterdir()) and not ours.is_file():
            raise UserError(f"{named(out)}: already there, and not from a pipeline; choose another directory")
        shutil.rmtree(out)
    with atomic_dir(out) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        (temporary / MARKER).write_text("`atoll pipeline` may replace this directory\n")
    return Made(out.resolve())
