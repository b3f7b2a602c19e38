"""How a group of verbs adds its verbs to the parser, and how a command line is read."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from atoll.errors import UserError

Verb = Callable[[argparse.Namespace], int | None]
TICKET = "ticket"  # the argument that may come in several pieces, where it was pasted with line breaks
PIECE = re.compile(r"-(?!-)")  # of a ticket that was broken before a dash
OVERRIDE = re.compile(r"[\w-]+(\.[\w-]+)*=", re.ASCII)


class Verbs:
    """The verbs of a parser. A verb has the name of its function."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(self, function: Verb, text: str) -> argparse.ArgumentParser:
        """The parser of a new verb without arguments; `text` describes it in `--help`."""
        added = self._verbs.add_parser(function.__name__, help=text, description=text)
        added.set_defaults(verb=function, parser=added)
        return added

    def add_with_recipe(self, function: Verb, text: str) -> argparse.ArgumentParser:
        """The parser of a new verb that takes a recipe, overrides of it, and the run's directory."""
        added = self.add(function, text)
        text = "a TOML file, the name of a built-in recipe (demo), or the directory of a run that there is"
        self.add_overrides(added, "recipe", text, "KEY=VALUE", "outer.inner_steps=50")
        added.add_argument("--dir", type=Path, help="the run's directory (default runs/NAME)")
        added.add_argument("--variant", default="", help="which of the recipe's variants, if it has some")
        return added

    def add_overrides(
        self, added: argparse.ArgumentParser, first: str, text: str, metavar: str, example: str
    ) -> None:
        """Let a verb take an argument called `first` and, after or before it, overrides."""
        added.add_argument(first, help=text)
        added.add_argument("overrides", nargs="*", metavar=metavar, help=f"for instance {example}")
        added.set_defaults(first=first)

    def add_start(self, added: argparse.ArgumentParser) -> None:
        """Let a verb take the run whose end another begins from."""
        text = "begin from the newest committed state of this run: its directory on this machine"
        added.add_argument("--from", dest="start", type=Path, metavar="RUN", help=text)

    def add_with_run(
        self, function: Verb, text: str, where: str = "the run's directory"
    ) -> argparse.ArgumentParser:
        """The parser of a new verb that takes the directory of a run that exists; `where` describes it."""
        added = self.add(function, text)
        added.add_argument("run", type=Path, help=where)
        return added


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """What a command line says; its options and overrides may come in any order.

    argparse ends the list of overrides at the first option, and hands back what comes later.
    """
    options, late = parser.parse_known_args(arguments)
    takes_overrides = hasattr(options, "overrides")
    takes_ticket = getattr(options, "first", "") == TICKET
    wrong = [word for word in late if word.startswith("-") and not (takes_ticket and PIECE.match(word))]
    if wrong or (late and not takes_overrides):
        options.parser.error(f"unrecognized arguments: {' '.join(wrong or late)}")
    if takes_overrides:
        options.overrides = [*options.overrides, *late]
        _put_first(options)
    return options


def _put_first(options: argparse.Namespace) -> None:
    """Exchange what stands in the place of the first argument, if it is an override, for what is none."""
    first = getattr(options, "first", "")
    if first and is_override(override := getattr(options, first)):
        others = [word for word in options.overrides if not is_override(word)]
        if not others:
            options.parser.error(f"the following arguments are required: {first}")
        setattr(options, first, others[0])
        options.overrides[options.overrides.index(others[0])] = override


def is_override(text: str) -> bool:
    """Whether a word is meant as `key.path=value`, and names no file."""
    return OVERRIDE.match(text) is not None and not Path(text).exists()


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError unless an option's value is a number from `low` to `high`."""
    if not low <= value <= high:
        raise UserError(f"{name} {value:g}: must be from {low:,.12g} to {high:,.12g}")
