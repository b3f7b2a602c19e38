"""The verbs about what is made around training: `atoll merge`, `evolve`, `pipeline`."""

import argparse
import os
from pathlib import Path
from typing import Any, get_args

from atoll.cli.process import nothing_to_clean_up
from atoll.cli.verbs import Verbs, is_override
from atoll.recipe.merge import Merge
from atoll.words import command

METHODS = [str(kind.__struct_config__.tag) for kind in get_args(Merge)]


def add_to(verbs: Verbs) -> None:
    """Add this group's verbs."""
    added = verbs.add(merge, "one checkpoint of several")
    added.add_argument("method", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    added.add_argument(
        "models",
        nargs="+",
        metavar="MODEL | KEY=VALUE",
        help="checkpoint directories; and settings of the method, like density=0.7 or weights=[0.2,0.8]",
    )
    added.add_argument("--out", type=Path, required=True, help="a directory that is empty or does not exist")
    added.add_argument(
        "--base", type=Path, help="the model that the others began from, where METHOD needs it"
    )
    added.add_argument("--dtype", choices=("fp32", "bf16"), help="of the result (default: as the models)")
    text = "measure each candidate: by the held-out loss on a prepared run's data, or by what it scores on "
    added.add_argument(
        "--by",
        action="append",
        metavar="heldout=RUN | task=NAME",
        help=text + "a task of lm-eval, of which more may be said: --by limit=200 --by num_fewshot=5",
    )
    added = verbs.add(evolve, "harder instructions and their answers, from seeds and a model on a server")
    text = "a .jsonl file, or a text file of an instruction a line"
    verbs.add_overrides(added, "seeds", text, "KEY=VALUE", "model=NAME server=http://localhost:8000/v1")
    added.add_argument(
        "--out", type=Path, required=True, help="a directory; the same one again goes on where it was"
    )
    added = verbs.add(pipeline, "steps that make models and data out of one another, each done once")
    added.add_argument("pipeline", help="a TOML file, or the name of one that ships (small-instruct)")
    added.add_argument("--dir", type=Path, help="where (default pipelines/NAME)")
    added.add_argument("--plan", action="store_true", help="say what would be done, and do nothing of it")


def evolve(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.post.evolve import evolve as make
        from atoll.recipe.convert import convert
        from atoll.recipe.evolve import Evolve
        from atoll.recipe.overrides import override
        from atoll.terminal import Evolving, Terminal

    tree: dict[str, Any] = {"seeds": options.seeds}
    for text in options.overrides:
        override(tree, text)
    settings = convert(tree, Evolve, "these settings")
    with Terminal() as terminal:
        evolving = Evolving(terminal)
        report = make(settings, options.out, os.environ.get("OPENAI_API_KEY", ""), evolving.show)
        evolving.done(report, options.out)


def merge(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.evaluate.results import DIRECTORY
        from atoll.post.merge import merge as make
        from atoll.post.metric import metric_of
        from atoll.recipe.convert import convert
        from atoll.recipe.metric import By, check_by
        from atoll.recipe.overrides import override
        from atoll.terminal import Terminal

    where = "this merge"
    tree: dict[str, object] = {"method": options.method}
    for text in filter(is_override, options.models):
        override(tree, text)
    method = convert(tree, Merge, where)  # pyright: ignore[reportArgumentType] (a union is no type)
    metric = None
    if options.by is not None:
        given: dict[str, object] = {}
        for text in options.by:
            override(given, text)
        by = convert(given, By, "--by")
        check_by(by, "--by")
        metric = metric_of(by, Path(DIRECTORY))
    models = [Path(text) for text in options.models if not is_override(text)]
    with Terminal() as terminal:
        made = make(
            method,
            models,
            options.out,
            base=options.base,
            dtype=options.dtype,
            metric=metric,
            say=terminal.tell,
        )
    value = "" if made.best.value is None else f", {made.best.value:.5g}"
    print(f"{made.best.name}{value}, is in {made.out}")
    print(f"next: {command('generate', made.out, 'Once upon a time')}")


def pipeline(options: argparse.Namespace) -> None:
    with nothing_to_clean_up():
        from atoll.post.pipeline import load, plan, run
        from atoll.terminal import Terminal

    loaded = load(options.pipeline)
    if options.plan:
        print(plan(loaded), end="")
        return
    with Terminal() as terminal:
        directory = options.dir or Path("pipelines") / loaded.name
        finished = run(loaded, directory, os.environ.get("OPENAI_API_KEY", ""), terminal.tell)
        terminal.tell("")
        terminal.tell(finished.picture.rstrip())
        terminal.tell("")
        for name, value in finished.summary.items():
            terminal.tell(f"{name:22} {value}")
        if out := finished.summary.get("export_dir"):
            terminal.tell(f"next: {command('generate', out, 'Once upon a time')}")
