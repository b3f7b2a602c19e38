"""The pipeline itself: each step in turn, but those whose inputs have not changed."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from atoll.errors import UserError
from atoll.files import DirectoryLock, write_atomic
from atoll.given import named
from atoll.post.command import Failed
from atoll.post.pipeline.card import write_card
from atoll.post.pipeline.inputs import inputs_of
from atoll.post.pipeline.picture import picture
from atoll.post.pipeline.product import Product
from atoll.post.pipeline.references import References, check, referred
from atoll.post.pipeline.steps import Place, do
from atoll.recipe.pipeline import AnyStep, Export, Pipeline
from atoll.recipe.read import parse_as

INPUTS, SUMMARY, PICTURE = "inputs", "summary.json", "made.txt"

Say = Callable[[str], None]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What a pipeline has made."""

    summary: dict[str, Any]
    picture: str
    directory: Path


def load(source: str | Path) -> Pipeline:
    """A pipeline from its file, or one that ships with atoll. Raises UserError for what is wrong in it."""
    pipeline = parse_as(source, Pipeline)
    check(pipeline, str(source))
    return pipeline


def run(pipeline: Pipeline, directory: Path, key: str = "", say: Say = lambda _: None) -> Finished:
    """Do the steps in `directory`, and write `summary.json` and `made.txt` there.

    A step whose inputs are what they were is left out; one that was interrupted goes on. `key`: for a server
    of models. Raises UserError where a step fails: what was made stays, and the same call goes on.
    """
    lock = DirectoryLock(directory)
    if not lock.acquire():
        raise UserError(f"{named(directory)}: another process works on this pipeline")
    started = time.monotonic()
    with lock:
        products: dict[str, Product] = {}
        for number, step in enumerate(pipeline.step, start=1):
            products[step.name] = _done(step, products, directory, key, say, f"{number}/{len(pipeline.step)}")
        summary = {name: _found(place, products) for name, place in pipeline.summary.items()}
        exported = [step.name for step in pipeline.step if isinstance(step, Export)]
        if exported:
            summary["export_dir"] = products[exported[-1]].path
        summary["seconds"] = round(sum(product.seconds for product in products.values()), 1)
        summary["seconds_now"] = round(time.monotonic() - started, 1)
        drawn = picture(pipeline, products)
        for step in pipeline.step:
            if isinstance(step, Export):
                write_card(pipeline, step, products)
        write_atomic(directory / PICTURE, drawn.encode())
        write_atomic(directory / SUMMARY, msgspec.json.format(msgspec.json.encode(summary)))
    return Finished(summary=summary, picture=drawn, directory=directory)


def _done(
    step: AnyStep, products: dict[str, Product], directory: Path, key: str, say: Say, place: str
) -> Product:
    """What a step has made, now or earlier."""
    own = directory / step.name
    inputs = inputs_of(step, products)
    kept = Product.load(own)
    if kept is not None and kept.inputs == inputs and kept.is_there:
        say(f"{place} {step.name}: unchanged")
        return kept
    begun = own / INPUTS
    if own.exists() and (not begun.is_file() or begun.read_text() != inputs):
        shutil.rmtree(own)  # of other inputs
    write_atomic(begun, inputs.encode())
    say(f"{place} {step.name}: {msgspec.to_builtins(step)['do']}")
    started = time.monotonic()
    try:
        made = do(step, Place(own, References(products), key, lambda text: say(f"    {text}")))
    except (Failed, UserError) as error:
        raise UserError(f"step {step.name}: {error}; the same command goes on from here") from error
    product = Product(
        inputs=inputs,
        path=str(made.path),
        parts={name: str(path) for name, path in made.parts.items()},
        found=made.found,
        seconds=round(time.monotonic() - started, 1),
        made_from=referred(step),
    )
    product.save(own)
    say(f"{place} {step.name}: done in {product.seconds:,.0f} s")
    return product


def _found(place: str, products: dict[str, Product]) -> Any:
    """The figure at `STEP.KEY.KEY`. Raises UserError where the step has not found such a one."""
    name, *keys = place.split(".")
    value: Any = products[name].found
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            known = (isinstance(value, dict) and ", ".join(value)) or "nothing"
            raise UserError(f"summary: {place}: step {name} has found no {key!r}; there is: {known}")
        value = value[key]
    return value
