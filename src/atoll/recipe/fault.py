"""What is wrong with a recipe, and the error that says so."""

from typing import NamedTuple

from atoll.errors import UserError


class Fault(NamedTuple):
    """Something wrong at one place of a recipe."""

    path: str  # dotted, of the value that has to change; "" is the whole recipe
    sentence: str

    def error(self, where: str) -> UserError:
        """The error to raise; `where` names the origin of the recipe, as its file."""
        return UserError(f"{where}: at {self.path or 'the top level'}: {self.sentence}")
