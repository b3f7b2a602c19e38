"""The verbs about data: `atoll prepare`, `capture`."""

import argparse
from pathlib import Path

from atoll.cli.opened import opened, started
from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, within
from atoll.words import command

MAX_ENTRIES = 1024  # of a token, in a capture


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
    verbs.add_start(added)

    text = "what another model says of the prepared rows: a reference for dpo and ipo, a teacher for distill"
    added = verbs.add_with_recipe(capture, text)
    text = "a teacher: a checkpoint directory of transformers"
    added.add_argument("--teacher", type=Path, metavar="DIR", help=text)
    text = "a teacher behind an OpenAI-compatible server that returns prompt_logprobs, as vLLM does"
    added.add_argument("--server", default="", metavar="URL", help=text)
    added.add_argument("--served", default="", metavar="NAME", help="with --server: the model's name there")
    text = "a teacher's rows as DistillKit writes them, as JSON lines"
    added.add_argument("--rows", type=Path, metavar="FILE", help=text)
    text = "with --rows, where they are compressed: DistillKit's configuration of that, as JSON"
    added.add_argument("--codec", type=Path, metavar="FILE", help=text)
    text = "the teacher's tokenizer.json (default: in --teacher)"
    added.add_argument("--tokenizer", type=Path, metavar="FILE", help=text)
    text = "of each token: the likeliest, and one for all others (default 32)"
    added.add_argument("--entries", type=int, default=32, metavar="K", help=text)
    text = "only the Nth of COUNT shares of the work, which other processes do at the same time"
    added.add_argument("--part", default="1/1", metavar="N/COUNT", help=text)


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
        preparing.done(
            genesis.prepare(loaded, run_dir, preparing.report, terminal.tell, start=started(options))
        )
        terminal.tell(f"state 0 and data are in {named(run_dir.path)}; next: {command('host', run_dir.path)}")


def capture(options: argparse.Namespace) -> None:
    within("--entries", options.entries, 2, MAX_ENTRIES)
    with nothing_to_clean_up():
        from atoll.given import named
        from atoll.post.capture import Part
        from atoll.post.verb import Asked, capture_for
        from atoll.terminal import Terminal

    loaded, run_dir = opened(options)
    asked = Asked(
        teacher=options.teacher,
        server=options.server,
        rows=options.rows,
        served=options.served,
        codec=options.codec,
        tokenizer=options.tokenizer,
        num_entries=options.entries,
        part=Part.parse(options.part),
    )
    with Terminal() as terminal:
        missing, measured = capture_for(
            loaded,
            run_dir,
            asked,
            lambda done, count: terminal.busy(f"captured {done:,} of {count:,} ranges"),
        )
        terminal.clear()
        if measured:
            terminal.tell(measured)
        if missing:
            terminal.tell(
                f"{missing:,} ranges are missing, which other parts of this work (--part) have to do"
            )
        else:
            terminal.tell(f"captured, in {named(run_dir.data)}; next: {command('host', run_dir.path)}")
