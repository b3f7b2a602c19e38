"""How a group of verbs adds its verbs to the parser."""

import argparse
from collections.abc import Callable
from pathlib import Path

Verb = Callable[[argparse.Namespace], int | None]


class Verbs:
    """The verbs of a parser. A verb has the name of its function."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(self, function: Verb, text: str) -> argparse.ArgumentParser:
        """The parser of a new verb without arguments; `text` describes it in `--help`."""
        added = self._verbs.add_parser(function.__name__, help=text, description=text)
        added.set_defaults(verb=function)
        return added

    def add_with_recipe(self, function: Verb, text: str) -> argparse.ArgumentParser:
        """The parser of a new verb that takes a recipe, overrides of it, and the run's directory."""
        added = self.add(function, text)
        added.add_argument("recipe", help="a TOML file, or the name of a built-in recipe (demo)")
        added.add_argument(
            "overrides", nargs="*", metavar="KEY=VALUE", help="for instance outer.inner_steps=50"
        )
        added.add_argument("--dir", type=Path, help="the run's directory (default runs/NAME)")
        return added

    def add_with_run(
        self, function: Verb, text: str, where: str = "the run's directory"
    ) -> argparse.ArgumentParser:
        """The parser of a new verb that takes the directory of a run that exists; `where` describes it."""
        added = self.add(function, text)
        added.add_argument("run", type=Path, help=where)
        return added
