"""The verbs of one machine: `atoll demo`, `train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from atoll.cli.opened import has_variants, opened, started
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, within
from atoll.errors import UserError
from atoll.words import command

MAX_AT_ONCE = 1024  # variants


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    text = "three islands on this machine; one is killed and comes back; a checkpoint: the idea in minutes"
    added = verbs.add(demo, text)
    added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for instance outer.codec=fp32")
    added.add_argument("--recipe", default="demo", help="another recipe (default demo)")
    added.add_argument("--dir", type=Path, default=Path("runs/demo"), help="where (default runs/demo)")

    added = verbs.add_with_recipe(train, "train one island alone, a swarm of one")
    verbs.add_start(added)
    text = "how many variants of the recipe train side by side (default 1)"
    added.add_argument("--at-once", type=int, metavar="N", help=text)


def demo(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.demo.demo import demo as show

    show(options.recipe, options.overrides, options.dir)


def train(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.run.join import train_alone
        from atoll.terminal import Terminal

    if not options.variant and has_variants(options.recipe):
        _train_variants(options)
        return
    if options.at_once is not None:
        raise UserError("--at-once: this is one run; it is about a recipe with variants")
    loaded, run_dir = opened(options)
    with Terminal() as terminal:
        train_alone(loaded, run_dir, terminal, started(options))
        terminal.tell(f"next: {command('export', run_dir.path, run_dir.path / 'export')}")


def _train_variants(options: argparse.Namespace) -> None:
    """Train all variants of a recipe, and tell how well each did."""
    from atoll.post.training import Training
    from atoll.post.variants import table, train_all
    from atoll.recipe.read import find
    from atoll.terminal import Terminal

    within("--at-once", 1 if options.at_once is None else options.at_once, 1, MAX_AT_ONCE)
    directory = options.dir or Path("runs") / find(options.recipe).stem
    how = Training(start=started(options), at_once=options.at_once or 1)
    with Terminal() as terminal:
        ranking = train_all(options.recipe, options.overrides, directory, how, say=terminal.tell)
        terminal.tell(table(ranking).rstrip())
        terminal.tell(f"the best: {ranking.best.model}")
