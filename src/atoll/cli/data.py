"""The verb about data: `atoll prepare`."""

import argparse

from atoll.cli.opened import opened
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs
from atoll.words import command


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
    with nothing_to_clean_up():
        from atoll.given import named
        from atoll.run import genesis
        from atoll.terminal import Preparing, Terminal

    loaded, run_dir = opened(options)
    if options.check or options.show is not None:
        from atoll.data import show

        if options.check:
            print(show.checked(loaded, run_dir.data))
        if options.show is not None:
            print(show.sample(loaded, run_dir.data, options.show))
        return
    with Terminal() as terminal:
        preparing = Preparing(terminal)
        if options.partition:
            preparing.done(genesis.prepare_partition(loaded, run_dir, options.partition, preparing.report))
            terminal.tell(
                f"it stays in {named(run_dir.private)}; islands in {named(run_dir.path)} train on it from "
                "their next start on"
            )
            return
        preparing.done(genesis.prepare(loaded, run_dir, preparing.report, terminal.tell))
        terminal.tell(f"state 0 and data are in {named(run_dir.path)}; next: {command('host', run_dir.path)}")
