"""What goes into a step: if all of it is what it was, the step is not done again."""

from pathlib import Path
from typing import Any

import msgspec

from atoll import recipe as recipes
from atoll.data.markup import strings
from atoll.given import expanded
from atoll.post.pipeline.digest import digest_path, digest_value
from atoll.post.pipeline.product import Product
from atoll.post.pipeline.references import REFERENCE, referred
from atoll.recipe import Recipe
from atoll.recipe.pipeline import AnyStep, Export, Prepare, Train
from atoll.recipe.read import find
from atoll.recipe.variants import Variant


def inputs_of(step: AnyStep, products: dict[str, Product]) -> str:
    """The digest of a step's settings, of what it takes from others, and of the files that it reads."""
    settings = _settings(step)
    texts = dict(settings)
    if isinstance(step, Export):
        del texts["to"]  # where it goes is not read
    files = {text: digest_path(expanded(text)) for text in sorted(set(strings(texts))) if _is_path(text)}
    if isinstance(step, Prepare | Train):
        files[step.recipe] = digest_path(find(step.recipe))
        files |= {str(path): digest_path(path) for path in _sources(step)}
    others = {name: [products[name].inputs, *_contents(products[name])] for name in referred(step)}
    return digest_value([settings, files, others])


def _settings(step: AnyStep) -> dict[str, Any]:
    """What a step says about what it makes: not what it says for people, nor how much it does at once."""
    plain: dict[str, Any] = msgspec.to_builtins(step)
    for table in (plain, *(plain["variant"] if isinstance(step, Train) else ())):
        table.pop("note")
    plain.pop("at_once", None)
    return plain


def _is_path(text: str) -> bool:
    """Whether a text of a step names something on this machine."""
    if "\0" in text or REFERENCE.match(text):
        return False
    path = expanded(text)
    return path.is_file() or ("/" in text and path.is_dir())


def _contents(product: Product) -> list[str]:
    """The digests of what another step made, so that a change by hand is seen too."""
    return [digest_path(Path(path)) for path in (product.path, *product.parts.values())]


def _sources(step: Prepare | Train) -> list[Path]:
    """The files and folders of this machine that a step's recipe reads."""
    found: list[Path] = []
    for recipe in recipes_of(step):
        for source in recipe.sources.values():
            given = (getattr(source, kind) for kind in source.kinds)
            found += [expanded(text) for text in given if expanded(text).exists()]
        if recipe.tokenizer.file:
            found.append(expanded(recipe.tokenizer.file))
    return sorted({path for path in found if path.exists()})


def recipes_of(step: Prepare | Train) -> list[Recipe]:
    """The recipes of a step's runs, as far as they are known before other steps. Raises UserError."""
    plain = [text for text in step.set if not REFERENCE.search(text)]
    own = step.variant if isinstance(step, Train) else []
    wanted: list[str | Variant] = [step.variant] if isinstance(step, Prepare) and step.variant else [*own]
    return [
        recipes.load(step.recipe, plain, variant)
        for variant in wanted or recipes.variants(step.recipe).names or [""]
    ]
