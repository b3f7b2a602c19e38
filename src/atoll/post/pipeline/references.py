"""`@STEP` in a pipeline: what another step has made."""

import difflib
import re
from collections.abc import Mapping

import msgspec

from atoll.data.markup import strings
from atoll.errors import UserError
from atoll.post.pipeline.product import Product
from atoll.recipe.metric import By, check_by
from atoll.recipe.pipeline import Pipeline, Step, Train
from atoll.recipe.variants import check_names
from atoll.words import listed

REFERENCE = re.compile(r"(?<![\w@])@([A-Za-z0-9_-]+)(?::([A-Za-z0-9_-]+|\*))?")


def check(pipeline: Pipeline, where: str) -> None:
    """Raises UserError unless every step has a name of its own, and refers to earlier steps alone."""
    before: list[str] = []
    for step in pipeline.step:
        if step.name in before:
            raise UserError(f"{where}: step {step.name}: there are two of this name")
        for name in referred(step):
            if name not in before:
                near = difflib.get_close_matches(name, before, 1)
                known = (
                    f"; did you mean @{near[0]}?" if near else f"; before it come: {listed(before) or 'none'}"
                )
                raise UserError(f"{where}: step {step.name}: @{name} is no step before it{known}")
        before.append(step.name)
        by = getattr(step, "by", None)
        if isinstance(by, By):
            check_by(by, f"{where}: step {step.name}: by")
        if isinstance(step, Train):
            check_names(step.variant, f"{where}: step {step.name}: variant")
            if step.drill and step.islands == 1:
                raise UserError(
                    f"{where}: step {step.name}: drill: has no effect on one island alone; give islands"
                )
    for key, place in pipeline.summary.items():
        if place.split(".")[0] not in before:
            raise UserError(f"{where}: summary.{key}: there is no step {place.split('.')[0]}")


def referred(step: Step) -> list[str]:
    """The names of the steps that a step refers to, each once."""
    found = (match[1] for text in strings(msgspec.to_builtins(step)) for match in REFERENCE.finditer(text))
    return list(dict.fromkeys(found))


class References:
    """What the steps so far have made."""

    def __init__(self, products: Mapping[str, Product]) -> None:
        self._products = products

    def path(self, text: str) -> str:
        """A text with paths in the place of references. Raises UserError for a part that is not there."""
        return REFERENCE.sub(lambda match: self._all(match)[0], text)

    def paths(self, texts: list[str]) -> list[str]:
        """The same for several texts, where `@STEP:*` stands for all parts."""
        found: list[str] = []
        for text in texts:
            match = REFERENCE.fullmatch(text)
            found += self._all(match) if match else [self.path(text)]
        return found

    def _all(self, match: re.Match[str]) -> list[str]:
        name, part = match[1], match[2]
        product = self._products[name]
        if part is None:
            return [product.path]
        if part == "*":
            return list(product.parts.values()) or [product.path]
        if part not in product.parts:
            raise UserError(f"@{name}:{part}: there is: {listed(product.parts) or 'one only'}")
        return [product.parts[part]]
