"""The verbs of one machine: `atoll demo`, `train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from atoll.cli.opened import has_variants, opened, started
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs
from atoll.words import command


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    text = "three islands on this machine; one is killed and comes back; a checkpoint: the idea in minutes"
    added = verbs.add(demo, text)
    added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for instance outer.codec=fp32")
    added.add_argument("--recipe", default="demo", help="another recipe (default demo)")
    added.add_argument("--dir", type=Path, default=Path("runs/demo"), help="where (default runs/demo)")

    added = verbs.add_with_recipe(train, "train one island alone, a swarm of one")
    verbs.add_start(added)


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
    loaded, run_dir = opened(options)
    with Terminal() as terminal:
        train_alone(loaded, run_dir, terminal, started(options))
        terminal.tell(f"next: {command('export', run_dir.path, run_dir.path / 'export')}")


def _train_variants(options: argparse.Namespace) -> None:
    """Train all variants of a recipe, one after the other, and tell how well each did."""
    from atoll.post.variants import keep_ranking, train_all
    from atoll.recipe.read import find
    from atoll.terminal import Terminal

    directory = options.dir or Path("runs") / find(options.recipe).stem
    with Terminal() as terminal:
        ranked = train_all(
            options.recipe, options.overrides, directory, start=started(options), say=terminal.tell
        )
        keep_ranking(ranked, directory / "ranking.txt")
        terminal.tell((directory / "ranking.txt").read_text().rstrip())
        terminal.tell(f"the best: {ranked[0].model}")
