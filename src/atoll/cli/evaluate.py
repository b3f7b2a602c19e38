"""The verb that measures models: `atoll evaluate`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, within
from atoll.errors import UserError

if TYPE_CHECKING:  # `--help` does without
    from atoll.evaluate.measure import Asked

MAX_LIMIT, MAX_BATCH, MAX_EVERY, MAX_FEWSHOT = 1_000_000, 65_536, 1_000_000, 1_000
TEMPLATE = {"auto": None, "yes": True, "no": False}


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add(evaluate, "what checkpoints score on lm-eval's tasks, beside published figures")
    added.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a directory that transformers loads, a name on the hub, or the directory of a run",
    )
    what = added.add_mutually_exclusive_group()
    what.add_argument("--suite", default="intellect-1", help="a list of tasks (default intellect-1)")
    what.add_argument("--tasks", metavar="TASK,...", help="tasks of lm-eval instead, each as it is by itself")
    added.add_argument(
        "--num-fewshot", type=int, metavar="N", help="examples before each question of --tasks"
    )
    added.add_argument("--limit", type=int, metavar="N", help="only the first N questions of each task")
    added.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder laid out like the hub, REPO/NAME in it; nothing is fetched (default: the hub)",
    )
    added.add_argument("--chat-template", choices=TEMPLATE, default="auto", help="default: as the model says")
    added.add_argument("--batch-size", type=int, default=1, metavar="N", help="requests at once (default 1)")
    added.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU, if there is one")
    text = "where results are kept (default: evaluations; of a run: RUN/evaluations)"
    added.add_argument("--dir", type=Path, help=text)
    added.add_argument("--plot", type=Path, metavar="PNG", help="draw a run's scores over its tokens")
    added.add_argument("--json", action="store_true", help="the results as JSON, for programs")
    text = "measure each new state of a run that goes on, until it is finished"
    added.add_argument("--follow", action="store_true", help=text)
    added.add_argument(
        "--every", type=int, metavar="N", help="with --follow: only each Nth state (default 1)"
    )
    text = "with --follow: a text that each state continues, for the dashboard"
    added.add_argument("--prompt", default="", help=text)


def evaluate(options: argparse.Namespace) -> None:
    asked_for = options.num_fewshot is not None
    if asked_for and options.tasks is None:
        raise UserError("--num-fewshot: a suite says itself how many examples each task has; give --tasks")
    within("--num-fewshot", options.num_fewshot or 0, 0, MAX_FEWSHOT)
    within("--limit", 1 if options.limit is None else options.limit, 1, MAX_LIMIT)
    within("--batch-size", options.batch_size, 1, MAX_BATCH)
    within("--every", 1 if options.every is None else options.every, 1, MAX_EVERY)
    if options.every is not None and not options.follow:
        raise UserError("--every: this is about the states of a run that goes on; give --follow")
    if options.prompt and not options.follow:
        raise UserError("--prompt: this is about the states of a run that goes on; give --follow")
    if options.follow and (len(options.models) > 1 or options.json):
        raise UserError("--follow: takes the directory of one run, and no --json; its results are files")
    # Read when those libraries are imported: their bars would break our lines.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with nothing_to_clean_up():
        import msgspec

        from atoll.evaluate.verb import Shown, Wanted, measured
        from atoll.terminal import Terminal

    with Terminal(quiet=options.json) as terminal:
        wanted = Wanted(
            models=tuple(options.models),
            asked=_asked(options),
            data=options.data,
            directory=options.dir,
            plot=options.plot,
            prompt=options.prompt,
        )
        if options.follow:
            from atoll.evaluate.follow import follow

            follow(wanted, options.every or 1, Shown(terminal))
            return
        found = measured(wanted, Shown(terminal, is_shown=not options.json))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())


def _asked(options: argparse.Namespace) -> Asked:
    """The questions, and how they are put. Raises UserError."""
    from atoll.evaluate import suites
    from atoll.evaluate.measure import Asked

    if options.tasks is None:
        questions = suites.suite(options.suite)
    else:
        questions = suites.questions(options.tasks, options.num_fewshot)
    return Asked(
        questions=questions,
        optional=options.tasks is None,
        limit=options.limit,
        chat_template=TEMPLATE[options.chat_template],
        batch_size=options.batch_size,
        device=options.device or "",
    )
