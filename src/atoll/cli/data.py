"""The verb about data: `atoll prepare`."""

import argparse
from pathlib import Path

from atoll.cli.verbs import Verbs


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add_with_recipe(prepare, "sources -> tokenizer -> token shards, and state 0")
    added.add_argument("--check", action="store_true", help="only verify all that is prepared")
    added.add_argument(
        "--partition",
        metavar="SOURCE/NAME=KIND:PATH",
        help="only prepare this machine's part of a partitioned source",
    )
    added.add_argument("--show", type=int, metavar="N", help="only print sample N, decoded")


def prepare(options: argparse.Namespace) -> None:
    from atoll import recipe
    from atoll.given import named
    from atoll.run import genesis
    from atoll.run.directory import RunDir
    from atoll.terminal import Terminal
    from atoll.words import command

    loaded = recipe.load(options.recipe, options.overrides)
    run_dir = RunDir(options.dir or Path("runs") / loaded.name)
    if options.check or options.show is not None:
        from atoll.data import show

        if options.check:
            print(show.checked(loaded, run_dir.data))
        if options.show is not None:
            print(show.sample(loaded, run_dir.data, options.show))
        return
    terminal = Terminal()
    if options.partition:
        made = genesis.prepare_partition(loaded, run_dir, options.partition, terminal.preparing)
        terminal.prepared(made)
        terminal.tell(
            f"it stays in {named(run_dir.private)}; islands in {named(run_dir.path)} train on it from their "
            "next start on"
        )
        return
    terminal.prepared(genesis.prepare(loaded, run_dir, terminal.preparing))
    where = ["--dir", str(options.dir)] if options.dir else []
    next_line = command(["atoll", "host", options.recipe, *options.overrides, *where])
    terminal.tell(f"state 0 and data are in {named(run_dir.path)}; next: {next_line}")
